"""``python -m benchmarks.real_sizes --work FOLDER``: every command on models of the real size, on a CPU.

Writes Stable Diffusion 1.5 and CLIP ViT-L/14 with random weights (3.0 GB in fp16), trains two steps of each stage at 128
pixels, draws a picture and exports, each by a process of its own, and prints its time and its peak memory. Started
again, it goes on; exits 1 if a command fails.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.real_sizes.models import write_models
from cictl.files import write_atomic

_SMALL = ("--width", "128", "--height", "128")
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in what wait4 counts
_COMMANDS = (
    ("init", "teapot", "--model", "MODELS/sd15", "--images", "photographs"),
    ("check", "-C", "teapot", "--set", "data.resolution=128", "--set", "model.clip=MODELS/clip"),
    ("invert", "-C", "teapot", "--steps", "2", "--set", "data.resolution=128", "--set", "model.clip=MODELS/clip"),
    ("finetune", "-C", "teapot", "--steps", "2"),
    ("generate", "-C", "teapot", "a photo of S*", "-n", "1", "--steps", "4", *_SMALL),
    ("export", "-C", "teapot"),
    ("export", "-C", "teapot", "--format", "single-file"),
    ("status", "-C", "teapot"),
)


@dataclass(frozen=True)
class Measured:
    """One command: how it ended, and what it took.

    Attributes:
        seconds: by the clock; ``processor_seconds`` are those of all cores together, which other programs change little.
        peak: the most memory that it had, in bytes. Files that it mapped are in it, whose pages the system can take back;
            ``own_peak`` is without them, looked at every tenth of a second (0 where the system does not tell).
    """

    command: str
    exit_code: int
    seconds: float
    processor_seconds: float
    peak: int
    own_peak: int


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_sizes", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the models and the workspace; needs 12 GB")
    work = parser.parse_args().work.absolute()
    # In a process of its own: a child's peak begins at what its parent had.
    writer = multiprocessing.get_context("spawn").Process(target=write_models, args=(work / "sd15", work / "clip"))
    writer.start()
    writer.join()
    if writer.exitcode:
        sys.exit(writer.exitcode)
    _write_photographs(work / "photographs")
    file = work / "real-sizes.json"
    known = json.loads(file.read_text("utf-8"))["commands"] if file.is_file() else []
    done = {values["command"]: Measured(**values) for values in known if values["exit_code"] == 0}
    for command in _COMMANDS:
        shown = _shown(command)
        if shown not in done:
            done[shown] = _measure(command, work)
            figures = {"machine": _machine(), "commands": [asdict(one) for one in done.values()]}
            write_atomic(file, json.dumps(figures, indent=1).encode())
        if done[shown].exit_code:
            sys.exit(f"{shown}: exit code {done[shown].exit_code}")
    print(table(list(done.values())))


def table(measured: Sequence[Measured]) -> str:
    """In Markdown."""
    rows = [
        f"| `{one.command}` | {one.seconds:.0f} s | {one.processor_seconds:.0f} s | {one.peak / 2**30:.1f} GiB | "
        f"{one.own_peak / 2**30:.1f} GiB |"
        for one in measured
    ]
    return "\n".join(["| command | time | processor time | peak memory | without mapped files |", "|---|---|---|---|---|", *rows])


def _measure(command: Sequence[str], work: Path) -> Measured:
    arguments = [part.replace("MODELS", str(work)) for part in command]
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    print(f"$ {_shown(command)}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "cictl", *arguments], cwd=work, env=environment, stdout=sys.stderr)
    own_peak = ended = 0
    while not ended:
        with suppress(psutil.NoSuchProcess):
            memory = psutil.Process(process.pid).memory_info()
            own_peak = max(own_peak, memory.rss - memory.shared) if hasattr(memory, "shared") else 0
        time.sleep(0.1)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)  # subprocess gives the peak of all children, not of this one
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    processor_seconds = usage.ru_utime + usage.ru_stime
    return Measured(
        _shown(command), process.returncode, round(seconds, 1), round(processor_seconds, 1), usage.ru_maxrss * _RSS_UNIT, own_peak
    )


def _shown(command: Sequence[str]) -> str:
    return " ".join(["cictl", *(f'"{part}"' if " " in part else part for part in command)])


def _machine() -> dict[str, object]:
    import torch

    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _write_photographs(folder: Path) -> None:
    """Four pictures of the embedded model's world, as large as photographs are trained with."""
    from PIL import Image

    from cictl.toybox.concepts import demo_concept

    folder.mkdir(exist_ok=True)
    for number, pixels in enumerate(demo_concept().photographs()[:4], 1):
        Image.fromarray(pixels).resize((512, 512), Image.Resampling.BICUBIC).save(folder / f"teapot-{number}.png")


if __name__ == "__main__":
    main()

"""``python -m benchmarks.optimisations --work FOLDER``: what docs/performance.md says of each optimisation.

Counts operations and bytes of a step with shapes alone, and runs the text encoder, steps of stage 1 (with convolutions as they
are and as products of matrices, and in each ``model.memory``) and steps of a picture, each in a process of its own. FOLDER is
that of ``benchmarks.real_sizes``; what lacks is written there (2.9 GB). What a GPU gains is measured by ``benchmarks.ways``.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from benchmarks.optimisations.parts import convolve, denoise, encode_texts, train_step
from benchmarks.real_sizes.models import write_models
from cictl.config import MemoryMode


def main() -> None:
    """Print a Markdown table for each part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimisations", description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument("--resolution", type=int, default=256, help="of the step that is run; counts are of 512")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    _alone(partial(write_models, work / "sd15", work / "clip"))
    for part in arguments.parts:
        _PARTS[part](work, arguments.resolution)


def counts(work: Path, resolution: int) -> None:
    """A step at 512 pixels, batch 4, bf16, in each memory mode."""
    import torch

    from cictl.models.cost import count_step

    print("| stage | model.memory | kept for the backward pass | computed again at a time | in all, with weights | TFLOP |")
    print("|---|---|---|---|---|---|")
    for stage in ("invert", "finetune"):
        for memory in get_args(MemoryMode):
            cost = count_step(work / "sd15", stage=stage, resolution=512, batch=4, dtype=torch.bfloat16, memory=memory)
            sizes = " | ".join(f"{size / 2**30:.2f} GiB" for size in (cost.activations, cost.recomputed, cost.memory))
            print(f"| {stage} | {memory} | {sizes} | {cost.flops / 1e12:.2f} |", flush=True)


def text(work: Path, resolution: int) -> None:
    """The text encoder, forward and backward: Eq. 2 whole and cut, Eq. 1 of a batch with a photograph twice."""
    print("| what is encoded | GFLOP forward | GFLOP backward | processor seconds |\n|---|---|---|---|", flush=True)
    _alone(partial(encode_texts, work))


def convolutions(work: Path, resolution: int) -> None:
    """A step of stage 1 in fp32, with the library's convolutions alone, and with products at few positions."""
    print("| a step, batch 1 | convolutions, processor seconds | products, processor seconds |\n|---|---|---|", flush=True)
    _alone(partial(convolve, work, resolution))


def drawing(work: Path, resolution: int) -> None:
    """A step of a guided picture in fp32, whose prompts' keys and values are computed at every step, and once in ten."""
    print("| a step of a picture | at every step, processor seconds | once, processor seconds |\n|---|---|---|", flush=True)
    _alone(partial(denoise, work, resolution))


def steps(work: Path, resolution: int) -> None:
    """One step of stage 1 in fp32 in each memory mode."""
    print(f"| model.memory, {resolution} px, batch 1 | memory beyond the weights, at most | processor seconds |")
    print("|---|---|---|", flush=True)
    for memory in get_args(MemoryMode):
        _alone(partial(train_step, work, memory, resolution))


_PARTS: dict[str, Callable[[Path, int], None]] = {
    "counts": counts,
    "text": text,
    "convolutions": convolutions,
    "drawing": drawing,
    "steps": steps,
}


def _alone(work: Callable[[], None]) -> None:
    """In a process of its own, so that no memory of another is counted."""
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()

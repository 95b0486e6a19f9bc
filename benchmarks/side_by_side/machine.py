"""On what, and with which versions, something was measured."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cictl.files import write_atomic

_PACKAGES = (
    "cictl", "torch", "triton", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "torchvision",
)  # fmt: skip
_ROOT = Path(__file__).parents[2]


def about(module: str, device: str) -> dict[str, Any]:
    """What was typed, with which code, on what, with which versions."""
    return {"command": command_line(module), "code": code(), "machine": machine(device), "versions": versions()}


def code() -> dict[str, Any]:
    """``commit`` of git and whether files of it were ``changed``, None where git knows nothing; ``sha256`` of all sources.

    The sum is of each Python file of ``cictl`` and ``benchmarks``, its path and its bytes, in the order of the paths.
    """
    total = hashlib.sha256()
    files = {
        file.relative_to(_ROOT).as_posix(): file for part in ("cictl", "benchmarks") for file in (_ROOT / part).rglob("*.py")
    }
    for name in sorted(files):
        total.update(f"{name}\0".encode() + files[name].read_bytes())
    changes = _ask("git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _ask("git", "-C", str(_ROOT), "rev-parse", "HEAD"),
        "changed": None if changes is None else bool(changes),
        "sha256": total.hexdigest(),
    }


def machine(device: str) -> dict[str, Any]:
    """The machine, without a name of it."""
    import torch

    facts: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }  # fmt: skip
    return facts


def versions() -> dict[str, str]:
    """Of Python and of the packages that matter; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command_line(module: str) -> str:
    """What was typed, with the folders' own names in place of whole paths."""
    typed = [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]
    return shlex.join(["python", "-m", module, *typed])


def has_gpu() -> bool:
    """Whether there is one that torch can use."""
    import torch

    return torch.cuda.is_available()


def add_result(file: Path, part: str, values: Mapping[str, Any]) -> None:
    """Put ``values`` into the JSON file under ``part``, beside what is there."""
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps({**known, part: values}, indent=1) + "\n").encode())


def _ask(program: str, *arguments: str) -> str | None:
    """What a program prints, or None if it is not there or fails."""
    if not shutil.which(program):
        return None
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

"""On what, and with which versions, something was measured."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cictl.files import write_atomic

_PACKAGES = ("cictl", "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pillow", "torchvision")


def machine(device: str) -> dict[str, Any]:
    """The machine, without a name of it."""
    import torch

    facts: dict[str, Any] = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {"gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda}
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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

"""Checkpoints and fingerprints as files: which there are, whether they are whole, and what they were made from.

Imports no torch, so that `cictl status` can read them. The tensors are engine/checkpoint.py's.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cictl.files import sha256_file

MANIFEST = "manifest.json"
RESULT = "result.safetensors"
STATE = "state.safetensors"

_STEP_FOLDER = re.compile(r"step-(\d{7,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the disk.

    Attributes:
        folder: where it lies.
        step: the steps that were done.
        manifest: what it was made from and the sha256 of each of its files.
    """

    folder: Path
    step: int
    manifest: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the run had reached its end."""
        return bool(self.manifest.get("complete"))

    @property
    def result_hash(self) -> str:
        """The sha256 of what generation and export read."""
        return str(self.manifest["files"][RESULT])


@dataclass(frozen=True)
class Difference:
    """A field of the fingerprint that is not what it was."""

    field: str
    before: Any
    now: Any


def step_folder(step: int) -> str:
    """The name of the checkpoint of ``step`` steps."""
    return f"step-{step:07d}"


def checkpoint_folders(stage_folder: Path) -> list[Path]:
    """The checkpoints of a stage, the newest first, whole or not; half-written ones are not among them."""
    if not stage_folder.is_dir():
        return []
    return sorted((path for path in stage_folder.iterdir() if _STEP_FOLDER.fullmatch(path.name)), reverse=True)


def read_checkpoint(folder: Path, *, verify: bool = True) -> tuple[Checkpoint | None, str]:
    """The checkpoint in ``folder``, or None and what is wrong with it.

    Args:
        verify: read every file and compare its sha256; otherwise only look whether it is there.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        step, files = int(manifest["step"]), dict(manifest["files"])
        if RESULT not in files or step_folder(step) != folder.name:
            return None, "its manifest does not fit it"
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return None, f"{name} is missing"
            if verify and sha256_file(path) != expected:
                return None, f"{name} is damaged (its sha256 is not what the manifest says)"
    except FileNotFoundError as error:
        return None, f"{Path(error.filename or MANIFEST).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{MANIFEST} cannot be read ({error})"
    return Checkpoint(folder, step, manifest), ""


def latest_checkpoint(stage_folder: Path, *, verify: bool = True) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence about each newer one that is not."""
    damaged: list[str] = []
    for folder in checkpoint_folders(stage_folder):
        checkpoint, problem = read_checkpoint(folder, verify=verify)
        if checkpoint:
            return checkpoint, damaged
        damaged.append(f"the checkpoint {folder.parent.name}/{folder.name} is passed over: {problem}")
    return None, damaged


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two fingerprints, field by field. A field that one side does not know is equal."""
    return list(_differences(before, now))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before["photographs"], now["photographs"]
    for sha256, name in old.items():
        if sha256 not in new:
            yield Difference("photographs", name, "removed or changed")
    for sha256, name in new.items():
        if sha256 not in old:
            yield Difference("photographs", "not there", name)
    for field, value in before["fields"].items():
        if field not in now["fields"]:
            continue
        current = now["fields"][field]
        unknown = field.startswith("identity.") and None in (value, current)
        if current != value and not unknown:
            yield Difference(field, value, current)


def archive(stage_folder: Path, name: str) -> Path:
    """Put a stage's checkpoints aside under ``name``; they are never deleted.

    Returns:
        Where they are now.
    """
    target = stage_folder.parent / "archive" / f"{stage_folder.name}-{name}"
    number = 2
    while target.exists():
        target = target.with_name(f"{stage_folder.name}-{name}-{number}")
        number += 1
    target.parent.mkdir(exist_ok=True)
    stage_folder.rename(target)
    return target


def remove_staging(stage_folder: Path) -> None:
    """Delete what a killed process left half-written."""
    for path in stage_folder.glob(".staging-*"):
        shutil.rmtree(path, ignore_errors=True)

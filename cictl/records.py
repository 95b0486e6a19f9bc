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

from cictl.files import sha256_bytes, sha256_file
from cictl.placeholders import NAME_PATTERN

MANIFEST = "manifest.json"
RESULT = "result.safetensors"
STATE = "state.safetensors"
SNAPSHOTS = "snapshots"  # results along the way, kept for good
PHOTOGRAPHS = "photographs"

_MEANS = {
    "model.id": "identity.model", "model.revision": "identity.model",
    "model.clip": "identity.clip", "model.clip_revision": "identity.clip",
}  # fmt: skip
_SEAL = "sha256"
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
    """A field of the fingerprint that is not what it was.

    Of ``PHOTOGRAPHS`` one for each name: None before for one that was added, now for one that is gone, and the name
    twice for one that holds another picture.
    """

    field: str
    before: Any
    now: Any


def sealed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as JSON, with the sha256 of all the rest in it."""
    return _json({**manifest, _SEAL: sha256_bytes(_json(manifest))})


def _json(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode()


def step_folder(step: int) -> str:
    """The name of the checkpoint of ``step`` steps."""
    return f"step-{step:07d}"


def checkpoint_folders(stage_folder: Path) -> list[Path]:
    """The checkpoints of a stage, the newest first, whole or not; half-written ones are not among them."""
    if not stage_folder.is_dir():
        return []
    return sorted((path for path in stage_folder.iterdir() if _STEP_FOLDER.fullmatch(path.name)), reverse=True)


def read_checkpoint(folder: Path, *, verify: bool | str = True) -> tuple[Checkpoint | None, str]:
    """The checkpoint in ``folder``, or None and what is wrong with it.

    Args:
        verify: read every file, or the one that is named, and compare its sha256; of the others only look whether they are there.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if manifest.pop(_SEAL) != sha256_bytes(_json(manifest)):
            return None, f"{MANIFEST} is damaged (its sha256 is not what it says)"
        step, files = int(manifest["step"]), dict(manifest["files"])
        ours = RESULT in files and files.keys() <= {RESULT, STATE}
        if not ours or step_folder(step) != folder.name or not _is_of(folder, manifest):
            return None, "its manifest does not fit it"
        for name, expected in files.items():
            path = folder / name
            if not path.is_file():
                return None, f"{name} is missing"
            if verify in (True, name) and sha256_file(path) != expected:
                return None, f"{name} is damaged (its sha256 is not what the manifest says)"
    except FileNotFoundError as error:
        return None, f"{Path(error.filename or MANIFEST).name} is missing"
    except Exception as error:  # whatever somebody has written into it
        return None, f"{MANIFEST} cannot be read ({error})"
    return Checkpoint(folder, step, manifest), ""


def _is_of(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest, as far as it says so, is of the stage whose folder it lies in, and of a concept by a possible name.

    A workspace may be somebody else's, and the name becomes the name of files and a part of programs that are pasted.
    """
    stage_folder = folder.parent.parent if folder.parent.name == SNAPSHOTS else folder.parent
    stage, concept = manifest.get("stage", stage_folder.name), manifest.get("concept", "concept")
    return stage == stage_folder.name and isinstance(concept, str) and NAME_PATTERN.fullmatch(concept) is not None


def latest_checkpoint(stage_folder: Path, *, verify: bool | str = True) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence about each newer one that is not."""
    damaged: list[str] = []
    for folder in checkpoint_folders(stage_folder):
        checkpoint, problem = read_checkpoint(folder, verify=verify)
        if checkpoint:
            return checkpoint, damaged
        damaged.append(f"the checkpoint {folder.parent.name}/{folder.name} is passed over: {problem}")
    return None, damaged


def snapshots(stage_folder: Path, *, verify: bool = True) -> list[Checkpoint]:
    """The whole results that a stage has kept along the way, the earliest first; nothing can be trained from them."""
    return read_snapshots(stage_folder, verify=verify)[0]


def read_snapshots(stage_folder: Path, *, verify: bool = True) -> tuple[list[Checkpoint], list[str]]:
    """What :func:`snapshots` gives, and a sentence about each that is not whole."""
    whole, damaged = [], []
    for folder in reversed(checkpoint_folders(stage_folder / SNAPSHOTS)):
        snapshot, problem = read_checkpoint(folder, verify=verify)
        if snapshot:
            whole.append(snapshot)
        else:
            damaged.append(f"the snapshot {stage_folder.name}/{SNAPSHOTS}/{folder.name} is passed over: {problem}")
    return whole, damaged


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two fingerprints, field by field. A field that one side does not know is equal."""
    return list(_differences(before, now))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    old, new = before["photographs"], now["photographs"]
    gone = [name for sha256, name in old.items() if sha256 not in new]
    added = [name for sha256, name in new.items() if sha256 not in old]
    for name in gone:
        yield Difference(PHOTOGRAPHS, name, name if name in added else None)
    for name in added:
        if name not in gone:
            yield Difference(PHOTOGRAPHS, None, name)
    for field, value in before["fields"].items():
        if field not in now["fields"]:
            continue
        current = now["fields"][field]
        unknown = field.startswith("identity.") and None in (value, current)
        if field in _MEANS and _same_weights(_MEANS[field], before["fields"], now["fields"]):
            continue
        if current != value and not unknown:
            yield Difference(field, value, current)


def _same_weights(identity: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two names, such as a branch and the commit that it was at, or a folder before and after a move, mean the same."""
    return before.get(identity) is not None and before.get(identity) == now.get(identity)


def archive(folder: Path, name: str) -> Path:
    """Put a stage's checkpoints, or one of them, aside under ``name``; they are never deleted.

    Returns:
        Where they are now.
    """
    if _STEP_FOLDER.fullmatch(folder.name):
        shelf, name = folder.parent.parent / "archive", f"{folder.parent.name}-{folder.name}-{name}"
    else:
        shelf, name = folder.parent / "archive", f"{folder.name}-{name}"
    target, number = shelf / name, 2
    while target.exists():
        target, number = shelf / f"{name}-{number}", number + 1
    shelf.mkdir(exist_ok=True)
    folder.rename(target)
    return target


def set_aside_damaged(stage_folder: Path, last_whole: int) -> list[Path]:
    """Put the checkpoints after ``last_whole`` steps, which are damaged, aside: they would hide the new ones."""
    damaged = [folder for folder in checkpoint_folders(stage_folder) if folder.name > step_folder(last_whole)]
    return [archive(folder, "damaged") for folder in damaged]


def beginning_folder(stage_folder: Path) -> Path:
    """Where a training that is to take the place of another one has its first checkpoint, until it does."""
    return stage_folder.with_name(f".beginning-{stage_folder.name}")


def remove_staging(stage_folder: Path) -> None:
    """Delete what a killed process left half-written."""
    staged = (*stage_folder.glob(".staging-*"), *stage_folder.glob(f"{SNAPSHOTS}/.staging-*"))
    for path in (*staged, beginning_folder(stage_folder)):
        shutil.rmtree(path, ignore_errors=True)

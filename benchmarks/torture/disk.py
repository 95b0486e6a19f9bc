"""A disk that is full: errno 28 at every write and sync of a checkpoint, and a real file system of 16 MB."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from benchmarks.torture.crash_points import careful, counted_calls, tensors_of
from cictl.engine.checkpoint import save_checkpoint
from cictl.errors import ResourceError
from cictl.records import RESULT, latest_checkpoint

_MEBIBYTE = 2**20
_FAILING = ("mkdir", "open", "write", "fsync", "rename", "replace")


@dataclass
class Outcome:
    """At how many calls the disk was full, and what went wrong then.

    Attributes:
        real: steps that a real file system of 16 MB took before it was full; None if none could be mounted.
    """

    calls: int = 0
    wrong: list[str] = field(default_factory=list)
    real: int | None = None


def torture() -> Outcome:
    """Fill the disk at every call in turn, then fill a real one."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        with counted_calls(only=_FAILING) as counter:
            careful(Path(name) / "counted" / "invert", 2)
        outcome.calls = counter.calls
        for full_at in range(1, outcome.calls + 1):
            folder = Path(name) / str(full_at) / "invert"
            careful(folder, 2)
            if problem := _look(folder, full_at):
                outcome.wrong.append(f"full at call {full_at}: {problem}")
    with _small_disk() as disk:
        if disk:
            outcome.real, problem = _fill(disk)
            if problem:
                outcome.wrong.append(f"on a disk of 16 MB: {problem}")
    return outcome


def _look(folder: Path, full_at: int) -> str:
    """What is wrong after a write on a disk that is full from a certain call on, or nothing."""

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    try:
        with counted_calls(full_at, "within", full, only=_FAILING):
            careful(folder, 4)
    except ResourceError as error:
        if "MiB needed" not in error.message or "MiB free" not in error.message:
            return f"it does not say how much is needed: {error.message}"
        if list(folder.glob(".staging-*")):
            return "a half-written checkpoint still takes room"
        return _is_whole(folder, 2, 4)  # 4 if only the last sync failed
    except OSError as error:
        return f"it is shown as {type(error).__name__}"
    return _is_whole(folder, 4)  # the call was one that need not succeed, such as making a folder that is there


def _is_whole(folder: Path, *steps: int) -> str:
    found, damaged = latest_checkpoint(folder)
    if found is None or damaged or found.step not in steps:
        return f"the last checkpoint is not that of step {steps[0]} ({damaged or found})"
    same = torch.equal(load_file(found.folder / RESULT)["weight"], tensors_of(found.step)["weight"])
    return "" if same else "the last checkpoint has other bits"


def _fill(disk: Path) -> tuple[int, str]:
    """Checkpoints that grow until there is no room: how many there were, and what was wrong with the end."""
    folder = disk / "invert"
    for step in range(1, 100):
        tensors = {"weight": torch.zeros(step * _MEBIBYTE // 8)}
        try:
            save_checkpoint(folder, step, tensors, tensors, {"steps": 100})
        except ResourceError as error:
            found, damaged = latest_checkpoint(folder)
            if found is None or damaged or found.step != step - 1:
                return step, f"the last checkpoint is not the one before ({damaged or found})"
            return step, "" if "MiB needed" in error.message else error.message
    return 100, "it was never full"


@contextmanager
def _small_disk() -> Iterator[Path | None]:
    """A tmpfs of 16 MB, which only root may mount."""
    with tempfile.TemporaryDirectory() as name:
        try:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", name], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        try:
            yield Path(name)
        finally:
            with suppress(subprocess.CalledProcessError):
                subprocess.run(["umount", name], check=True, capture_output=True)

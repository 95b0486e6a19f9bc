"""Death before, within and after every file-system call of a checkpoint, by a kill or by a power cut."""

from __future__ import annotations

import builtins
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from cictl.engine.checkpoint import save_checkpoint
from cictl.files import sha256_bytes
from cictl.records import MANIFEST, RESULT, STATE, latest_checkpoint, remove_staging, sealed, step_folder

Moment = Literal["before", "within", "after"]
Save = Callable[[Path, int], object]
_CALLS = ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync")
_DEAD = 9
_STEPS = (2, 4, 6)  # two checkpoints are there; the third is written, and the first goes


@dataclass(frozen=True)
class Outcome:
    """How many deaths were died, and after how many of them something was lost."""

    calls: int
    deaths: int
    lost: list[str]


def torture(write: Save | None = None) -> Outcome:
    """Die at every point of writing a checkpoint.

    Args:
        write: a writer to put in the place of cictl's, as a control.
    """
    write = write or careful
    calls = _count(write)
    lost, deaths = [], 0
    for power in (False, True):
        for moment in ("before", "within", "after"):
            for number in range(1, calls + 1):
                deaths += 1
                if problem := _die_and_look(write, number, moment, power):
                    lost.append(f"{'power cut' if power else 'kill'} {moment} call {number}: {problem}")
    return Outcome(calls, deaths, lost)


def tensors_of(step: int) -> dict[str, Tensor]:
    """What the checkpoint of a step holds."""
    return {"weight": torch.arange(5000, dtype=torch.float32) + step}


def careful(folder: Path, step: int) -> object:
    """As cictl writes."""
    return save_checkpoint(folder, step, tensors_of(step), tensors_of(step), {"steps": 6})


def naive(folder: Path, step: int) -> None:
    """As many programs write: straight to the last place, the old ones first out of the way."""
    for old in sorted(folder.glob("step-*"))[:-1]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    target = folder / step_folder(step)
    target.mkdir()
    contents = {RESULT: save(tensors_of(step)), STATE: save(tensors_of(step))}
    manifest = sealed({"step": step, "files": {name: sha256_bytes(content) for name, content in contents.items()}})
    for name, content in {MANIFEST: manifest, **contents}.items():
        with open(target / name, "wb") as written:
            written.write(content)


def _die_and_look(write: Save, number: int, moment: Moment, power: bool) -> str:
    """What is wrong after a death, or nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "invert"
        for step in _STEPS[:2]:
            careful(folder, step)
        status = _in_child(lambda: _dying(write, folder, number, moment, power))
        if status not in (_DEAD, 0):
            return f"the writer ended with {status}"
        found, damaged = latest_checkpoint(folder)
        if damaged:
            return f"a broken checkpoint is in the place of a whole one: {damaged[0]}"
        if found is None or found.step < _STEPS[1]:
            return "the last checkpoint is gone"
        for file in (RESULT, STATE):
            if not torch.equal(load_file(found.folder / file)["weight"], tensors_of(found.step)["weight"]):
                return f"{file} of step {found.step} has other bits"
        remove_staging(folder)
        careful(folder, _STEPS[2])
        again, _ = latest_checkpoint(folder)
        return "" if again and again.step == _STEPS[2] else "the next checkpoint cannot be written"


def _count(write: Save) -> int:
    """How many calls there are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "invert"
        for step in _STEPS[:2]:
            careful(folder, step)
        with counted_calls() as counter:
            write(folder, _STEPS[2])
        return counter.calls


def _dying(write: Save, folder: Path, number: int, moment: Moment, power: bool) -> None:
    with counted_calls(number, moment, power=power):
        write(folder, _STEPS[2])


def _in_child(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process; its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Counter:
    """Counts calls, and at one of them does something that does not return: dies, or raises."""

    def __init__(self, fatal: int, moment: Moment, do: Callable[[], None] | None, power: bool) -> None:
        self.calls = 0
        self.fatal, self.moment, self.power = fatal, moment, power
        self.do = do or self.die
        self.unsynced: dict[int, int] = {}  # inode: a descriptor of our own

    def around(self, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Do ``call``, or what is to happen before, within or after it."""
        self.calls += 1
        fatal = self.calls == self.fatal
        if fatal and self.moment == "before":
            self.do()
        if fatal and self.moment == "within":
            if half:
                half()
            self.do()
        result = call()
        if fatal and self.moment == "after":
            self.do()
        return result

    def die(self) -> None:
        """End this process; in a power cut, what was not synced is then not on the disk."""
        if self.power:
            for descriptor in self.unsynced.values():
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os._exit(_DEAD)


class _CountedFile:
    """A file that is written to, each write a call."""

    def __init__(self, file: Any, counter: Counter, counts: bool) -> None:
        self._file, self._counter, self._counts = file, counter, counts
        counter.unsynced[os.fstat(file.fileno()).st_ino] = os.dup(file.fileno())

    def write(self, content: bytes) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        def whole() -> Any:
            written = self._file.write(content)
            self._file.flush()  # so that a kill after the call leaves all of it
            return written

        return self._counter.around(whole, half) if self._counts else whole()

    def __enter__(self) -> _CountedFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def counted_calls(
    fatal: int = 0,
    moment: Moment = "before",
    do: Callable[[], None] | None = None,
    *,
    power: bool = False,
    only: tuple[str, ...] = ("open", "write", *_CALLS),
) -> Iterator[Counter]:
    """Let every call that changes the file system go through a counter.

    Args:
        fatal: number of the call at which ``do`` is called (it must not return); by default the process dies.
        only: the calls that are counted.
    """
    counter = Counter(fatal, moment, do, power)
    originals = {name: getattr(os, name) for name in _CALLS}
    plain_open = builtins.open

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            result = counter.around(lambda: originals[name](*arguments, **options))
            if name == "fsync":
                counter.unsynced.pop(os.fstat(arguments[0]).st_ino, None)
            return result

        return call

    def open_counted(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if "w" not in mode and "a" not in mode:
            return plain_open(file, mode, *arguments, **options)

        def opened() -> Any:
            return plain_open(file, mode, *arguments, **options)

        return _CountedFile(counter.around(opened) if "open" in only else opened(), counter, "write" in only)

    try:
        for name in set(_CALLS) & set(only):
            setattr(os, name, wrapped(name))
        builtins.open = open_counted
        yield counter
    finally:
        for name, original in originals.items():
            setattr(os, name, original)
        builtins.open = plain_open

"""The project folder: finding it, making it, its paths, and who may write to it. Imports no torch."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cictl.errors import BusyError, ResourceError, StateError, UsageError
from cictl.files import absolute, as_typed, can_be_made, how_to_write, is_file, is_folder, is_there, quoted, write_atomic
from cictl.placeholders import NAME_PATTERN

CONFIG_NAME = "ci.yaml"
_NOT_THE_CONFIG = ("ci.yml", "ci.yaml.txt", "ci.yml.txt")  # how some editors would rather call it
_SOMEBODY = "another cictl process"
_PATIENCE_SECONDS = 0.2  # with one that only looks whether the lock is held
_RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


@dataclass(frozen=True)
class Writer:
    """Who writes to a workspace, as it has noted.

    Attributes:
        command: that it runs, such as ``cictl invert``; empty where its note cannot be read.
        process, host, since: which one it is; ``since`` is a time of that day.
        began: when, in seconds, by the clock of the disk.
        certain: whether the lock is held. Else it cannot be seen from here: by its rights, or since the note is another
            machine's, whose locks some disks keep to themselves.
    """

    command: str
    process: int
    host: str
    since: str
    began: float
    certain: bool

    def __str__(self) -> str:
        return f"`{self.command}` (process {self.process} on {self.host}, since {self.since})" if self.command else _SOMEBODY


@dataclass(frozen=True)
class Workspace:
    """A folder with images/, ci.yaml, checkpoints/, outputs/ and logs/."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / CONFIG_NAME

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def place_for_pictures(self, out: Path) -> Path:
        """``out``, where pictures are to be written.

        Raises:
            UsageError: it is images/, where pictures would be taken for photographs from then on.
        """
        if out.resolve() == self.images.resolve():
            raise UsageError(
                f"{self.shown(out)} is for the photographs, and a picture there would be taken for one",
                f"name another folder: --out {quoted(self.shown(self.outputs / 'more'))}",
                slug="out-is-images",
            )
        return out

    def stage_folder(self, stage: str) -> Path:
        """Where the checkpoints of a stage lie."""
        return self.checkpoints / stage

    def log_file(self, stage: str) -> Path:
        """What the training of a stage has told, an event a line."""
        return self.logs / f"{stage}.jsonl"

    def shown(self, path: Path) -> str:
        """``path`` as a person would type it from where they are."""
        return as_typed(path)

    @property
    def called(self) -> str:
        """How it is named to a person: as they would type it, or by its own name where they are in it."""
        typed = as_typed(self.root)
        return (self.root.name or typed) if typed in (os.curdir, os.pardir) else typed

    def typed(self, command: str) -> str:
        """``command`` as it works from where a person is: behind ``cd`` where this workspace would not be found from there."""
        with suppress(StateError):
            if find_workspace(Path.cwd())[0].root.resolve() == self.root.resolve():
                return command
        return f"cd {quoted(self.shown(self.root))} && {command}"

    @contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Be the only writer. The lock is the kernel's, and dies with its holder.

        Raises:
            BusyError: another process holds it; the message names it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._lock_file)
        try:
            self.checkpoints.mkdir(exist_ok=True)
            lock.acquire(timeout=_PATIENCE_SECONDS, poll_interval=_PATIENCE_SECONDS / 10)
        except Timeout:
            raise BusyError(
                f"{self.called} is being written to by {self._noted_writer(certain=True)}",
                "wait until it is done, or stop it with Ctrl-C where it runs (it saves a checkpoint)",
                slug="workspace-busy",
            ) from None
        except OSError as error:
            raise ResourceError(
                f"{self.checkpoints} cannot be locked: {error.strerror}",
                how_to_write(self.checkpoints, error),
                slug="workspace-not-lockable",
            ) from None
        try:
            holder = {"command": command, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%H:%M:%S")}
            try:
                write_atomic(self._writer_file, json.dumps(holder).encode())
            except OSError as error:
                raise ResourceError(
                    f"{self.checkpoints} cannot be written to: {error.strerror}",
                    how_to_write(self.checkpoints, error),
                    slug="workspace-not-writable",
                ) from None
            yield
        finally:
            with suppress(OSError):
                self._writer_file.unlink()
            lock.release()

    def writer(self) -> Writer | None:
        """Who holds the lock, or may hold it; nothing is changed."""
        from filelock import FileLock, Timeout

        if not self._writer_file.exists():
            return None
        lock = FileLock(self._lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return self._noted_writer(certain=True)
        except OSError:
            return self._noted_writer(certain=False)
        lock.release()
        noted = self._noted_writer(certain=False)
        return noted if noted.host not in ("", socket.gethostname()) else None  # one of this machine was killed

    @property
    def _lock_file(self) -> Path:
        return self.checkpoints / ".lock"

    @property
    def _writer_file(self) -> Path:
        return self.checkpoints / ".lock-holder.json"

    def _noted_writer(self, *, certain: bool) -> Writer:
        try:
            noted: dict[str, Any] = json.loads(self._writer_file.read_text("utf-8"))
            began = self._writer_file.stat().st_mtime
            said = _line(noted["command"]), int(noted["pid"]), _line(noted["host"]), _line(noted["since"])
            return Writer(*said, began, certain)
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return Writer("", 0, "", "", 0.0, certain)


def _line(noted: object) -> str:
    """A text of a file that may be anybody's: line breaks in it would be read as lines of cictl's own."""
    return " ".join(str(noted).split())


def find_workspace(start: Path, *, exact: bool = False) -> tuple[Workspace, str]:
    """The workspace that ``start`` is in, or else the only one that lies directly in it.

    Args:
        exact: ``start`` was named by the user (-C), so that nothing is searched for.

    Returns:
        The workspace, and a sentence that says which one if that is not obvious.

    Raises:
        StateError: there is none, or several.
    """
    start = absolute(start)
    if is_file(start / CONFIG_NAME):
        return Workspace(start), ""
    if exact:
        why, hint = _why_none(start)
        raise StateError(f"{start} is no workspace: {why}", hint, slug="workspace-not-there")
    for folder in start.parents:
        if (folder / CONFIG_NAME).is_file():
            return Workspace(folder), f"using the workspace {folder}"
    below = _right_below(start)
    if len(below) == 1:
        return Workspace(below[0]), f"using the workspace {below[0].name}"
    if below:
        raise StateError(
            [f"there are {len(below)} workspaces here:", *(f"  {folder.name}" for folder in below)],
            f"name one, as in: cictl COMMAND -C {quoted(below[0].name)}",
            slug="workspace-ambiguous",
        )
    raise StateError(
        f"there is no workspace in {start}, above it, or right below it",
        _how_to_mend(start) or "cictl init my-teapot makes one; -C DIR names one that is elsewhere",
        slug="workspace-not-found",
    )


def _right_below(folder: Path) -> list[Path]:
    """The workspaces that lie directly in ``folder``."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))


def _why_none(start: Path) -> tuple[str, str]:
    """Why ``start``, which was named, is no workspace, and what to do about it."""
    init = f"cictl init {quoted(str(start))} makes one"
    if not is_there(start):
        beside = ", ".join(folder.name for folder in _right_below(start.parent)) if is_folder(start.parent) else ""
        meant = f"name one of those in {start.parent}: {beside}\n" if beside else ""
        return "it does not exist", meant + (init if can_be_made(start) else "cictl init my-teapot makes one")
    if not start.is_dir():
        return "it is a file", f"name its folder: -C {quoted(str(start.parent))}"
    return f"it has no {CONFIG_NAME}", _how_to_mend(start) or init


def _how_to_mend(folder: Path) -> str:
    """What to do where a workspace has lost its settings, which init would not touch; "" if ``folder`` was none."""
    if found := next((name for name in _NOT_THE_CONFIG if is_file(folder / name)), ""):
        return f"rename {quoted(str(folder / found))} to {CONFIG_NAME}"
    put_back = f"put its {CONFIG_NAME} back; cictl init NEW-FOLDER makes a workspace whose {CONFIG_NAME} you can copy"
    return put_back if is_there(folder / "checkpoints") and is_there(folder / "images") else ""


def slug(text: str, limit: int = 48) -> str:
    """``text`` as a file name that every system takes: letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].strip("-")
    return f"{plain}-" if plain in _RESERVED_NAMES else plain or "untitled"


def check_name(name: str) -> str:
    """A concept's name: lower-case letters, digits and dashes.

    Raises:
        UsageError: it is anything else, or a name that Windows keeps for its devices.
    """
    refused = f"{name!r} cannot be the name of a concept"
    if name in _RESERVED_NAMES:
        raise UsageError(f"{refused}: Windows keeps it for a device", "for example: --name my-concept", slug="name-reserved")
    if not NAME_PATTERN.fullmatch(name):
        proposal = slug(name, 40).strip("-")
        proposal = "my-concept" if proposal in _RESERVED_NAMES else proposal
        raise UsageError(
            f"{refused}: lower-case letters, digits and dashes, 40 at most",
            f"for example: --name {proposal}",
            slug="name-invalid",
        )
    return name

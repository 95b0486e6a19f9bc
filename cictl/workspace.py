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
from cictl.files import write_atomic

CONFIG_NAME = "ci.yaml"
_RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


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

    def stage_folder(self, stage: str) -> Path:
        """Where the checkpoints of a stage lie."""
        return self.checkpoints / stage

    def shown(self, path: Path) -> str:
        """``path`` as a person would type it from where they are."""
        with suppress(ValueError, OSError):
            relative = os.path.relpath(path)
            if not relative.startswith(os.path.join("..", "..")):
                return relative
        return str(path)

    @contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Be the only writer. The lock is the kernel's, and dies with its holder.

        Raises:
            BusyError: another process holds it; the message names it.
        """
        from filelock import FileLock, Timeout

        holder_file = self.checkpoints / ".lock-holder.json"
        lock = FileLock(self.checkpoints / ".lock")
        try:
            self.checkpoints.mkdir(exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(
                f"{self.shown(self.root)} is being written to by {_describe_holder(holder_file)}",
                "wait until it is done, or stop it with Ctrl-C where it runs (it saves a checkpoint)",
                slug="workspace-busy",
            ) from None
        except OSError as error:
            raise ResourceError(
                f"{self.checkpoints} cannot be locked: {error.strerror}",
                f"allow writing: chmod -R u+rwX {self.checkpoints}",
                slug="workspace-not-lockable",
            ) from None
        try:
            holder = {"command": command, "pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%H:%M:%S")}
            try:
                write_atomic(holder_file, json.dumps(holder).encode())
            except OSError as error:
                raise ResourceError(
                    f"{self.checkpoints} cannot be written to: {error.strerror}",
                    "make room, then the same command again",
                    slug="workspace-not-writable",
                ) from None
            yield
        finally:
            with suppress(OSError):
                holder_file.unlink()
            lock.release()


def find_workspace(start: Path, *, exact: bool = False) -> tuple[Workspace, str]:
    """The workspace that ``start`` is in, or else the only one that lies directly in it.

    Args:
        exact: ``start`` was named by the user (-C), so that nothing is searched for.

    Returns:
        The workspace, and a sentence that says which one if that is not obvious.

    Raises:
        StateError: there is none, or several.
    """
    start = start.absolute()
    if (start / CONFIG_NAME).is_file():
        return Workspace(start), ""
    if exact:
        why = "does not exist" if not start.exists() else f"has no {CONFIG_NAME}"
        raise StateError(f"{start} is no workspace: it {why}", f"cictl init {start} makes one", slug="workspace-not-there")
    for folder in start.parents:
        if (folder / CONFIG_NAME).is_file():
            return Workspace(folder), f"using the workspace {folder}"
    below = sorted(path.parent for path in start.glob(f"*/{CONFIG_NAME}"))
    if len(below) == 1:
        return Workspace(below[0]), f"using the workspace {below[0].name}"
    if below:
        names = "\n".join(f"  {folder.name}" for folder in below)
        raise StateError(
            f"there are {len(below)} workspaces here:\n{names}",
            f"name one, as in: cictl COMMAND -C {below[0].name}",
            slug="workspace-ambiguous",
        )
    raise StateError(
        f"there is no workspace in {start}, above it, or right below it",
        "cictl init my-teapot makes one; -C DIR names one that is elsewhere",
        slug="workspace-not-found",
    )


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
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", name):
        proposal = slug(name, 40).strip("-")
        proposal = "my-concept" if proposal in _RESERVED_NAMES else proposal
        raise UsageError(
            f"{refused}: lower-case letters, digits and dashes, 40 at most",
            f"for example: --name {proposal}",
            slug="name-invalid",
        )
    return name


def _describe_holder(holder_file: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(holder_file.read_text("utf-8"))
        return f"`{holder['command']}` (process {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another cictl process"

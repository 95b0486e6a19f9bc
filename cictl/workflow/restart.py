"""--restart: the old training gives way, and goes to the archive, when the first checkpoint of the new one is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cictl.config import Stage
from cictl.errors import ResourceError
from cictl.events import PutAside
from cictl.files import how_to_write, quoted, sync_folder, write_atomic
from cictl.records import archive, beginning_folder, remove_staging
from cictl.workflow.event_log import EventLog
from cictl.workflow.saving import Saver
from cictl.workflow.tracking import tensorboard_folder
from cictl.workspace import Workspace

_LOG = "log.jsonl"


def begin_anew(workspace: Workspace, stage: Stage, saver: Saver, log: EventLog) -> None:
    """Write the checkpoint of step 0, put what the stage had until now aside, and say where it is.

    Whatever ends the process in between, both trainings are whole, each in its place or beside it.

    Args:
        log: held back until now, since its file is the old training's.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    folder = workspace.stage_folder(stage)
    beginning = beginning_folder(folder)
    remove_staging(folder)
    saver.write(0, beginning)
    with _disk_errors(workspace, folder):
        archived = _put_aside(workspace, stage)
        beginning.rename(folder)
        sync_folder(workspace.checkpoints)
    log(PutAside(archived, _way_back(workspace, stage, archived)))  # first: a full disk may end what begins the log
    log.begin()


def _put_aside(workspace: Workspace, stage: Stage) -> Path:
    """The checkpoints of a stage and its log; the log is copied first, since a run that finds no checkpoint begins it anew."""
    folder, log, curves = workspace.stage_folder(stage), workspace.log_file(stage), tensorboard_folder(workspace, stage)
    if log.exists():
        write_atomic(folder / _LOG, log.read_bytes())
    archived = archive(folder, time.strftime("%Y%m%d-%H%M%S"))
    if curves.exists():
        curves.rename(archived / "tensorboard")
    return archived


def _way_back(workspace: Workspace, stage: Stage, archived: Path) -> str:
    """What to type to have the old training back."""
    folder, shelf = workspace.stage_folder(stage), archived.parent
    moves = [(folder, shelf / f"{archived.name}-newer"), (archived, folder)]
    if (archived / _LOG).exists():
        moves.append((folder / _LOG, workspace.log_file(stage)))
    return " && ".join(f"mv {_typed(workspace, one)} {_typed(workspace, other)}" for one, other in moves)


def _typed(workspace: Workspace, path: Path) -> str:
    return quoted(workspace.shown(path))


@contextmanager
def _disk_errors(workspace: Workspace, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{workspace.shown(folder)} cannot be put aside: {error.strerror}",
            f"{how_to_write(workspace.checkpoints, error)}; nothing is lost",
            slug="archive-not-written",
        ) from None

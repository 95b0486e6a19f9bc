"""What brings a training on that has failed for want of disk, memory or company, said in one place whatever has failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cictl.config import Stage, group_of
from cictl.errors import ProcessLost, ResourceError
from cictl.records import Checkpoint, latest_checkpoint
from cictl.workflow.memory import out_of_memory_explained
from cictl.workspace import Workspace

_LESS_MEMORY = (
    "keep less for the backward pass, with --set model.memory=lowest, compute the batch in parts, with --set {}.accumulation=4, "
    "or close what else uses the device"
)


@contextmanager
def going_on_explained(workspace: Workspace, stage: Stage, *, restart: bool, replaces: bool) -> Iterator[None]:
    """Add to the hint of what can be repaired from where the training goes on, and how.

    Args:
        restart: whether --restart was given, which typed again would begin anew.
        replaces: whether another training is to give way to this one.
    """
    before = _saved(workspace, stage) if replaces else None
    try:
        with out_of_memory_explained(_LESS_MEMORY.format(group_of(stage))):
            yield
    except (ResourceError, ProcessLost) as error:
        saved, way = _saved(workspace, stage), ""
        if replaces and saved == before:
            way = "what was trained before is as it was, and the same command begins anew"
        elif saved:
            way = f"the same command{' without --restart' if restart else ''} goes on from step {saved.step}"
        error.hint = f"{error.hint}\n{way}".rstrip()
        raise error from None


def _saved(workspace: Workspace, stage: Stage) -> Checkpoint | None:
    return latest_checkpoint(workspace.stage_folder(stage), verify=False)[0]

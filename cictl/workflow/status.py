"""`cictl status`: what is done, whether anything changed since, and the next command. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cictl.config import METHODS, Stage, settings_of
from cictl.data.photographs import fingerprints
from cictl.errors import CictlError
from cictl.records import checkpoint_folders, differences, latest_checkpoint
from cictl.workflow.stage import STAGES, can_be_undone, configure, describe, fingerprint, kept_overrides
from cictl.workflow.stopping import ended_early
from cictl.workspace import Workspace

_TOO_FEW = 2


@dataclass(frozen=True)
class StageStatus:
    """A stage: the steps that are done and asked for, why fewer were enough, what changed since, what is damaged."""

    stage: Stage
    step: int
    steps: int
    changed: list[str]
    damaged: list[str]
    overrides: dict[str, Any] = field(default_factory=dict)
    ended_early: str = ""

    @property
    def state(self) -> str:
        """not started, started, done, or changed."""
        if self.changed:
            return "changed since"
        if self.damaged and not self.step:
            return "damaged"
        if not self.step:
            return "not started"
        return "done" if self.step >= self.steps or self.ended_early else "started"


@dataclass(frozen=True)
class Status:
    """A workspace at a glance; ``methods`` are those of the other methods that were begun."""

    workspace: str
    concept: str
    model: str
    photographs: list[str]
    stages: list[StageStatus]
    methods: list[StageStatus]
    pictures: int
    exports: list[str]
    next: str
    problem: str


def run(workspace: Workspace) -> Status:
    """Look, and change nothing; a running training is no obstacle.

    Raises:
        UsageError: ci.yaml is wrong.
    """
    config = configure(workspace, {})
    photographs = sorted(fingerprints(workspace.images)) if workspace.images.is_dir() else []
    stages = [_stage_status(workspace, stage) for stage in STAGES]
    methods = [_stage_status(workspace, method) for method in METHODS if checkpoint_folders(workspace.stage_folder(method))]
    found = [path.relative_to(workspace.outputs) for path in workspace.outputs.glob("export/**/*.safetensors")]
    exports = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    pictures = sum(1 for _ in workspace.outputs.glob("*.png"))
    next_command, problem = _next(workspace, photographs, stages, pictures, exports)
    return Status(
        workspace=str(workspace.root),
        concept=config.concept.name,
        model=config.model.id,
        photographs=photographs,
        stages=stages,
        methods=methods,
        pictures=pictures,
        exports=exports,
        next=next_command,
        problem=problem,
    )


def _stage_status(workspace: Workspace, stage: Stage) -> StageStatus:
    config = configure(workspace, {}, upto=stage)
    checkpoint, damaged = latest_checkpoint(workspace.stage_folder(stage), verify=False)
    settings = settings_of(config, stage)
    if checkpoint is None:
        return StageStatus(stage, 0, settings.steps, [], damaged)
    try:
        now = fingerprint(workspace, config, stage)
        changed = describe(differences(checkpoint.manifest["fingerprint"], now))
    except CictlError as error:
        changed = [error.message]
    kept, why = kept_overrides(workspace, upto=stage), ended_early(stage, checkpoint, settings)
    return StageStatus(stage, checkpoint.step, settings.steps, changed, damaged, kept, why)


def _next(
    workspace: Workspace, photographs: list[str], stages: list[StageStatus], pictures: int, exports: list[str]
) -> tuple[str, str]:
    """The next command, and what stands in its way."""
    if len(photographs) < _TOO_FEW:
        return f"put three to six photographs into {workspace.shown(workspace.images)}, then: cictl invert", ""
    for status in stages:
        if status.state in ("changed since", "damaged"):
            undo = "or undo the change, to go on with what is trained" if can_be_undone(status.changed) else ""
            return f"cictl {status.stage} --restart", undo
        if status.state != "done":
            return f"cictl {status.stage}", ""
    if not pictures:
        return 'cictl generate "a photo of S*"', ""
    return ("cictl export", "") if not exports else ('cictl generate "a photo of S* ..."', "")

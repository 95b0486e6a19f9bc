"""`cictl status`: what is done, whether anything changed since, and the next command. Imports no torch."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cictl.config import METHODS, STAGES, Stage, command_of, is_read_by, settings_of
from cictl.data.photographs import FEWEST, fingerprints
from cictl.errors import CictlError
from cictl.exporters.origin import origin_of
from cictl.records import checkpoint_folders, differences, latest_checkpoint
from cictl.workflow.event_log import read_progress
from cictl.workflow.plans import is_picture
from cictl.workflow.stage import TITLES, can_be_undone, configure, describe, fingerprint, kept_overrides
from cictl.workflow.stopping import ended_early
from cictl.workspace import Workspace


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
    running: bool = False

    @property
    def state(self) -> str:
        """running, changed since, damaged, not started, started, or done."""
        if self.running:
            return "running"
        if self.changed:
            return "changed since"
        if self.damaged and not self.step:
            return "damaged"
        if not self.step:
            return "not started"
        return "done" if self.step >= self.steps or self.ended_early else "started"


@dataclass(frozen=True)
class Running:
    """A training in another process.

    Attributes:
        stage: that is trained; None where its process has left no readable note.
        who: its command, process and machine.
        certain: whether its lock is held; else that cannot be seen from here.
        step, steps: done and asked for; 0 as long as it has not begun with them.
        seconds: that the other steps will take, once that is known.
    """

    stage: Stage | None
    who: str
    certain: bool
    step: int = 0
    steps: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Status:
    """A workspace at a glance; ``methods`` are those that were begun, ``export_origins`` the stages and steps of the exports.

    ``pictures`` are those in outputs/, without the sheets that were made of them.
    """

    workspace: str
    concept: str
    model: str
    photographs: list[str]
    stages: list[StageStatus]
    methods: list[StageStatus]
    pictures: int
    exports: list[str]
    export_origins: list[str]
    running: Running | None
    next: str
    problem: str


def run(workspace: Workspace) -> Status:
    """Look, and change nothing; a running training is no obstacle.

    Raises:
        UsageError: ci.yaml is wrong.
    """
    config = configure(workspace, {})
    photographs = sorted(fingerprints(workspace.images)) if workspace.images.is_dir() else []
    running = _running(workspace)
    in_hand = running.stage if running and running.certain else None
    begun = [method for method in METHODS if method == in_hand or checkpoint_folders(workspace.stage_folder(method))]
    stages, methods = (
        [replace(_stage_status(workspace, stage), running=stage == in_hand) for stage in some] for some in (STAGES, begun)
    )
    found = [path.relative_to(workspace.outputs) for path in workspace.outputs.glob("export/**/*.safetensors")]
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]  # half-written
    origins = sorted({origin for path in found if (origin := origin_of(workspace.outputs / path))})
    exports = sorted(path.as_posix() for path in found)
    pictures = sum(map(is_picture, workspace.outputs.glob("*.png")))
    next_command, problem = _next(workspace, photographs, stages, pictures, exports)
    if running:
        next_command, problem = _beside(running, next_command, problem)
    return Status(
        workspace=str(workspace.root),
        concept=config.concept.name,
        model=config.model.id,
        photographs=photographs,
        stages=stages,
        methods=methods,
        pictures=pictures,
        exports=exports,
        export_origins=origins,
        running=running,
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
    kept = {key: value for key, value in kept_overrides(workspace, upto=stage).items() if is_read_by(stage, key)}
    why = ended_early(stage, checkpoint, settings)
    return StageStatus(stage, checkpoint.step, settings.steps, changed, damaged, kept, why)


def _running(workspace: Workspace) -> Running | None:
    """The training in another process, as its lock and its log tell it."""
    writer = workspace.writer()
    if writer is None:
        return None
    stage = next((one for one in TITLES if command_of(one) == writer.command), None)
    found = Running(stage, str(writer), writer.certain)
    if stage and writer.certain:
        log = workspace.log_file(stage)
        with suppress(OSError):  # it has none yet
            if log.stat().st_mtime >= writer.began:  # else it is still that of the run before
                step, steps, seconds = read_progress(log)
                return replace(found, step=step, steps=steps, seconds=seconds)
    return found


def _beside(running: Running, next_command: str, problem: str) -> tuple[str, str]:
    """What can be done while another process trains, or may be training: nothing that trains."""
    if not next_command.startswith(tuple(map(command_of, TITLES))):
        return next_command, problem
    if running.certain:
        return "wait until it is done, or stop it with Ctrl-C where it runs (it saves a checkpoint)", ""
    return next_command, f"but only if {running.who} has ended, whose lock cannot be seen from here"


def _next(
    workspace: Workspace, photographs: list[str], stages: list[StageStatus], pictures: int, exports: list[str]
) -> tuple[str, str]:
    """The next command, and what stands in its way."""
    if len(photographs) < FEWEST:
        then = workspace.typed("cictl invert")
        return f"put three to six photographs into {workspace.shown(workspace.images)}, then: {then}", ""
    for status in stages:
        if status.state in ("changed since", "damaged"):
            undo = "or undo the change, to go on with what is trained" if can_be_undone(status.changed) else ""
            return f"cictl {status.stage} --restart", undo
        if status.state != "done":
            return f"cictl {status.stage}", ""
    if not pictures:
        return 'cictl generate "a photo of S*"', ""
    return ("cictl export", "") if not exports else ('cictl generate "a photo of S* ..."', "")

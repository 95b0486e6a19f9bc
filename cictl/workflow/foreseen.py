"""`cictl compare --dry-run`: which trainings of a comparison are done, what the others would take, and what would be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cictl.config import STAGES, Stage
from cictl.events import Observer
from cictl.records import latest_checkpoint, snapshots
from cictl.workflow import check, evaluate
from cictl.workflow.compare import begin, can_tell_the_best
from cictl.workflow.findings import Estimate
from cictl.workflow.finetune import can_be_tuned
from cictl.workflow.pins import read_pins, require_models
from cictl.workflow.rows import kept_along_the_way
from cictl.workflow.saving import milestones_of
from cictl.workflow.stage import LOAD_CLIP, configure, reads_clip
from cictl.workflow.training import TrainingOutcome
from cictl.workflow.trainings import stages_of, told, train_stage, warn_of_memory
from cictl.workspace import Workspace


@dataclass(frozen=True)
class Foreseen:
    """What a comparison would do.

    Attributes:
        trainings: of every row, in the order in which they would run.
        estimates: of those that would run, by stage.
        method: how that was estimated.
        pictures: of all rows, of which those that are there would be kept.
    """

    trainings: list[TrainingOutcome]
    estimates: dict[Stage, Estimate]
    method: str
    pictures: int


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    methods: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    drawing: Mapping[str, Any] | None = None,
    last_alone: bool = False,
) -> Foreseen:
    """Look at what :func:`cictl.workflow.compare.run` would do with the same arguments. Trains nothing, writes nothing.

    Raises:
        UsageError, StateError, ModelAccessError: as that.
    """
    chosen, overrides, config = begin(workspace, methods, overrides or {}, drawing or {})
    terms = evaluate.require_measurable(workspace, config, observe, download=False)
    last_alone = last_alone or not can_tell_the_best(terms, observe)
    trainings, estimates, method = [], {}, ""
    for stage in stages_of(chosen):
        own = told(stage, overrides)
        outcome = _training(workspace, stage, observe, overrides)
        trainings.append(outcome)
        if outcome.action != "skip":
            fresh = outcome.action == "run"
            estimates[stage], method = check.expect(workspace, stage, observe, own, done=outcome.first_step, fresh=fresh)
    read = any(one.stage in LOAD_CLIP and one.action != "skip" and reads_clip(config, one.stage) for one in trainings)
    require_models(config, read_pins(workspace, config), observe, clip=read)
    warn_of_memory(workspace, chosen, {stage: one.memory for stage, one in estimates.items()}, overrides, observe)
    drawn = [one for one in trainings if one.stage in chosen and not last_alone]
    along_the_way = sum(_along_the_way(workspace, one, overrides, observe) for one in drawn)
    pictures = (len(chosen) + along_the_way) * len(terms.asked.prompts) * config.evaluate.count
    if chosen[-1] in STAGES and config.invert.auxiliary_vectors:
        pictures += 1 + len(terms.photographs)  # of S* and of each A_i*
    return Foreseen(trainings, estimates, method, pictures)


def _along_the_way(workspace: Workspace, training: TrainingOutcome, overrides: Mapping[str, Any], observe: Observer) -> int:
    """How many results there will be that the training did not end with: those that are there, and those still to come."""
    stage = training.stage
    if training.action == "skip":
        return len(kept_along_the_way(workspace, stage, observe, verify=False))
    there = {one.step for one in snapshots(workspace.stage_folder(stage), verify=False)}
    milestones = milestones_of(configure(workspace, told(stage, overrides), upto=stage), stage)
    return len(there | {step for step in milestones if step >= training.first_step})


def _training(workspace: Workspace, stage: Stage, observe: Observer, overrides: Mapping[str, Any]) -> TrainingOutcome:
    if stage == "finetune":
        config = configure(workspace, told(stage, overrides))
        inverted, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
        if not (inverted and can_be_tuned(inverted, config.invert)):  # all steps, since it is trained on what is not there
            return TrainingOutcome(stage, "run", 0, config.finetune.steps, "", {}, 0.0, dry_run=True)
    return train_stage(workspace, stage, overrides, observe, dry_run=True)

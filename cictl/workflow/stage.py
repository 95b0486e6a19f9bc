"""Skip, resume or run: what a training command has to do, from fingerprints. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cictl.config import (
    FROM_PHOTOGRAPHS,
    METHODS,
    STAGES,
    Config,
    Sources,
    Stage,
    Training,
    command_of,
    load_config,
    says_nothing,
    trajectory,
)
from cictl.config.stages import BEFORE
from cictl.data.photographs import fingerprints
from cictl.data.prompts import in_quotes
from cictl.errors import ModelAccessError, StateError
from cictl.files import shown
from cictl.models.hub_listing import is_commit
from cictl.models.locate import Located, locate_base, locate_clip
from cictl.records import PHOTOGRAPHS, Checkpoint, Difference, differences, latest_checkpoint
from cictl.workflow.pins import Pins, read_pins
from cictl.workflow.stopping import ended_early
from cictl.workspace import Workspace

INVERTED = "result of cictl invert"  # in the fingerprint of stage 2
TITLES: dict[Stage, str] = {
    "invert": "stage 1, Contrastive Inversion",
    "finetune": "stage 2, disentangled cross-attention fine-tuning",
    "textual-inversion": "Textual Inversion",
    "dreambooth": "DreamBooth",
    "custom-diffusion": "Custom Diffusion",
    "disenbooth": "DisenBooth",
}
LOAD_CLIP: tuple[Stage, ...] = ("invert", "disenbooth")  # if their settings ask for it; stage 2 has what it needs from stage 1
_REVISIONS = {"identity.model": "model.revision", "identity.clip": "model.clip_revision"}

Action = Literal["run", "resume", "skip"]
Fingerprint = Mapping[str, Any]


_DRAWING = ("generate", "evaluate")
_SHAPING = ("evaluate.noun",)  # what the other methods are told


@dataclass(frozen=True)
class Decision:
    """What to do, from which checkpoint, and what is worth saying about it."""

    action: Action
    checkpoint: Checkpoint | None
    warnings: Sequence[str] = ()

    @property
    def first_step(self) -> int:
        """The steps that are done."""
        return self.checkpoint.step if self.checkpoint else 0


def configure(workspace: Workspace, overrides: Mapping[str, Any], *, upto: Stage = "finetune", fresh: bool = False) -> Config:
    """ci.yaml, under what earlier commands of the run were given, under ``overrides``.

    Args:
        upto: the last stage whose overrides count.
        fresh: forget those of that last stage, since it starts anew.
    """
    return load_config(Sources(workspace.config_file, kept_overrides(workspace, upto=upto, fresh=fresh), overrides))


def empty_settings(workspace: Workspace, overrides: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is to be said of a ci.yaml that sets nothing, and what to do about it.

    Raises:
        UsageError, StateError: as :func:`configure`.
    """
    if not says_nothing(workspace.config_file):
        return None
    where, config = workspace.shown(workspace.config_file), configure(workspace, overrides)
    return (
        f"{where} sets nothing: all settings are defaults, and the base model is {config.model.id}",
        "if it held settings, put them back; cictl init NEW-FOLDER makes a workspace whose ci.yaml you can copy",
    )


def kept_overrides(workspace: Workspace, *, upto: Stage = "finetune", fresh: bool = False) -> dict[str, Any]:
    """What --set gave the stages so far, by dotted key."""
    kept: dict[str, Any] = {}
    for stage in (*BEFORE[upto], *(() if fresh else (upto,))):
        checkpoint, _ = latest_checkpoint(workspace.stage_folder(stage), verify=False)
        if checkpoint:
            kept |= lasting(checkpoint.manifest.get("overrides", {}))
    return kept


def lasting(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Of what --set gave a training, what later commands keep to: all but how pictures are drawn and measured."""
    return {key: value for key, value in overrides.items() if key in _SHAPING or key.partition(".")[0] not in _DRAWING}


def fingerprint(workspace: Workspace, config: Config, stage: Stage, pins: Pins | None = None) -> Fingerprint:
    """Everything that changes the course of ``stage``: photographs, settings, base model, and what came before.

    What cannot be known without a network is None, and counts as unchanged.

    Args:
        pins: the commits that the stage stays with; None are those of its last checkpoint.
    """
    photographs = {sha256: name for name, sha256 in fingerprints(workspace.images).items()}
    fields = trajectory(config, stage)
    pins = pins or read_pins(workspace, config, stage)
    fields["identity.model"] = pins.model or _identity(locate_base, config.model.id, config.model.revision)
    if reads_clip(config, stage):
        fields["identity.clip"] = pins.clip or _identity(locate_clip, config.model.clip, config.model.clip_revision)
    if stage == "finetune":
        inverted, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
        fields[INVERTED] = inverted.result_hash if inverted else None
    return {"photographs": dict(sorted(photographs.items())), "fields": fields}


def decide(workspace: Workspace, stage: Stage, settings: Training, now: Fingerprint, *, restart: bool = False) -> Decision:
    """Whether to run, resume or skip ``stage``.

    Args:
        settings: how many steps are asked for in all, and whether fewer may do.
        now: the fingerprint as of now.
        restart: run in any case, if it can be run.

    Raises:
        StateError: photographs or settings are not those that the checkpoint was made from, no checkpoint of the stage is
            whole, or stage 2 does not fit what stage 1 was trained with, which no restart of it helps.
    """
    if stage == "finetune":
        _require_fitting_stage_1(workspace, now)
    if restart:
        return Decision("run", None)
    checkpoint, damaged = latest_checkpoint(workspace.stage_folder(stage))
    if checkpoint is None:
        if damaged:
            raise none_is_whole(stage, damaged)
        return Decision("run", None)
    require_unchanged(workspace, stage, checkpoint, now)
    action: Action = "skip" if is_over(stage, checkpoint, settings) else "resume"
    return Decision(action, checkpoint, damaged)


def is_over(stage: Stage, checkpoint: Checkpoint, settings: Training) -> bool:
    """Whether a training with ``settings`` has nothing left to do: all steps are done, or it ended early."""
    return checkpoint.step >= settings.steps or bool(ended_early(stage, checkpoint, settings))


def none_is_whole(stage: Stage, damaged: Sequence[str]) -> StateError:
    """The error for a stage that has checkpoints, all of them ``damaged``."""
    return StateError(
        [f"no checkpoint of {command_of(stage)} is whole:", *(f"  {line}" for line in damaged)],
        f"{command_of(stage)} --restart puts them aside and starts anew",
        slug="checkpoints-damaged",
    )


def require_unchanged(workspace: Workspace, stage: Stage, checkpoint: Checkpoint, now: Fingerprint) -> None:
    """``now`` must be the fingerprint that ``checkpoint`` was made from.

    Raises:
        StateError: photographs, settings or the base model are others.
    """
    if changed := differences(checkpoint.manifest["fingerprint"], now):
        raise _changed(workspace, stage, checkpoint, changed, now["fields"].get("evaluate.noun"))


def require_same_base(checkpoints: Sequence[Checkpoint], identity: str) -> None:
    """The base model must be the one that the checkpoints were trained on.

    Raises:
        StateError: it is another.
    """
    for checkpoint in checkpoints:
        fields = checkpoint.manifest["fingerprint"]["fields"]
        trained_on = fields.get("identity.model")
        if trained_on not in (None, identity):
            was, commit = shown(str(fields.get("model.id"))), is_commit(trained_on)
            revision = trained_on if commit else shown(str(fields.get("model.revision") or "null"))
            again: Stage = checkpoint.manifest["stage"] if checkpoint.manifest["stage"] in METHODS else "invert"
            raise StateError(
                f"the concept was learned on another base model: {was} with the {'commit' if commit else 'digest'} "
                f"{trained_on[:12]}, not {identity[:12]}",
                f"set model.id to {was} and model.revision to {revision} in ci.yaml (or with --set), or: "
                f"{command_of(again)} --restart",
                slug="base-changed",
            )


def _require_fitting_stage_1(workspace: Workspace, now: Fingerprint) -> None:
    inverted, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
    if inverted is None:
        return
    then = inverted.manifest["fingerprint"]
    others = [item for item in differences(then, now) if item.field == PHOTOGRAPHS]
    if others and then["fields"]["invert.auxiliary_vectors"]:  # without A_i* stage 2 asks for no photograph of its own
        raise StateError(
            ["the photographs are not those that stage 1 was trained with:", *(f"  {line}" for line in describe(others))],
            f"undo that in {workspace.shown(workspace.images)}, or start anew: cictl invert --restart",
            slug="photographs-differ",
        )
    if identity := now["fields"]["identity.model"]:  # else it is found out once it is downloaded
        require_same_base([inverted], identity)


def describe(changed: Sequence[Difference]) -> list[str]:
    """A line for each difference."""
    return [f"{item.field}: {_told(item)}" for item in changed]


def can_be_undone(changed: Sequence[str]) -> bool:
    """Whether what :func:`describe` says can be set back; a stage 1 that was trained on or anew cannot."""
    return not any(line.startswith(f"{INVERTED}:") for line in changed)


def _changed(
    workspace: Workspace, stage: Stage, checkpoint: Checkpoint, changed: Sequence[Difference], noun: str | None
) -> StateError:
    described = describe(changed)
    commits = [f"{key} {item.before}" for item in changed for field, key in _REVISIONS.items() if item.field == field
               and is_commit(item.before)]  # fmt: skip
    was = f"; {' and '.join(commits)} is what it was" if commits else ""
    images, settings = workspace.shown(workspace.images), workspace.shown(workspace.config_file)
    again = command_of(stage) + (f" --noun {in_quotes(noun)}" if noun else "")  # which --restart forgets
    if stage == "finetune" and any(item.field in ("model.id", "model.revision") for item in changed):
        again = command_of("invert")  # of another base model, which only a download will tell, stage 2 takes no S*
    undo = f"undo the change (in {images}, {settings} or --set{was}) to go on, or "
    return StateError(
        [
            f"what {command_of(stage)} was trained with has changed since ({checkpoint.step} steps are done):",
            *(f"  {line}" for line in described),
        ],
        f"{undo if can_be_undone(described) else ''}start anew: {again} --restart (the old checkpoints go to "
        "checkpoints/archive)",
        slug="training-changed",
    )


def reads_clip(config: Config, stage: Stage) -> bool:
    """Whether CLIP's image embeddings shape a stage: by Eq. 2 or by a start, for both of ours, or by DisenBooth's adapter."""
    auxiliary = config.invert.auxiliary_vectors > 0
    starts = [config.concept.start, *([config.invert.auxiliary_start] if auxiliary else [])]
    ours = (auxiliary and config.invert.contrastive_weight > 0) or FROM_PHOTOGRAPHS in starts
    return stage == "disenbooth" or (stage in STAGES and ours)


def _identity(locate: Callable[..., Located], model_id: str, revision: str | None) -> str | None:
    try:
        return locate(model_id, revision, offline=True).identity
    except ModelAccessError:
        return None


def _told(item: Difference) -> str:
    if item.field == INVERTED:
        return "another, since stage 1 was trained on or anew"
    if item.field != PHOTOGRAPHS:
        return f"{_short(item.before)} -> {_short(item.now)}"
    name = shown(str(item.now or item.before))
    if item.before == item.now:
        return f"{name} is another picture now, or cannot be read"
    return f"{name} is new" if item.now else f"{name} is gone"


def _short(value: Any) -> str:
    text = shown(str(value))
    return text if len(text) <= 48 else f"{text[:22]}...{text[-22:]}"

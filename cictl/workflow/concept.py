"""What training has found so far, of our stages or of another method: which checkpoints it is, and whether they are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cictl.config import METHODS, NEED_A_NOUN, Method, Stage, command_of
from cictl.data.prompts import token_names
from cictl.errors import StateError, UsageError
from cictl.events import Observer, Warned
from cictl.files import sha256_bytes
from cictl.records import (
    RESULT,
    SNAPSHOTS,
    Checkpoint,
    checkpoint_folders,
    latest_checkpoint,
    read_checkpoint,
    snapshots,
    step_folder,
)
from cictl.workflow.stage import INVERTED, TITLES, none_is_whole
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.models.concept_tokens import ConceptTokens

Source = Stage | Literal["base"]
_ATTEMPTS = 5


@dataclass(frozen=True)
class TokenLayout:
    """The stored tokens of S*, the keys of the photographs that have an auxiliary token, and its vectors n."""

    concept_names: list[str]
    keys: list[str]
    auxiliary_vectors: int


@dataclass(frozen=True)
class Concept:
    """A concept as ``source`` knows it.

    Attributes:
        source: finetune (tokens and tuned K, V), invert (tokens alone), another method, or base (nothing).
        name: of the concept; S* is stored as <name>.
        checkpoints: where it comes from, none for the base.
        results: the bytes of each one's result, since a training that goes on meanwhile deletes old checkpoints.
    """

    source: Source
    name: str
    checkpoints: Sequence[Checkpoint]
    results: Sequence[bytes] = field(default=(), repr=False)

    @property
    def hash(self) -> str:
        """Of all that generation reads; equal for equal tensors."""
        return sha256_bytes("\n".join(checkpoint.result_hash for checkpoint in self.checkpoints).encode())

    @property
    def steps(self) -> int:
        """Those of its last training that were done."""
        return self.checkpoints[-1].step if self.checkpoints else 0

    @property
    def fields(self) -> Mapping[str, Any]:
        """The settings that the first of its trainings was shaped by, by dotted key."""
        fields: Mapping[str, Any] = self.checkpoints[0].manifest["fingerprint"]["fields"]
        return fields

    def layout(self) -> TokenLayout:
        """How many vectors the tokens have, read from the header of their file alone."""
        header = json.loads(self.results[0][8 : 8 + int.from_bytes(self.results[0][:8], "little")])
        shapes = {key: value["shape"] for key, value in header.items() if key != "__metadata__"}
        keys = sorted(key.removeprefix("auxiliary.") for key in shapes if key.startswith("auxiliary."))
        auxiliary = shapes[f"auxiliary.{keys[0]}"][0] if keys else 0
        return TokenLayout(token_names(self.name, shapes["concept"][0]), keys, auxiliary)

    def tokens(self) -> ConceptTokens:
        """S* and the A_i*; of stages that both trained S*, that of the last."""
        from cictl.engine.checkpoint import parse_tensors
        from cictl.models.concept_tokens import ConceptTokens

        tensors = parse_tensors(self.results[0])
        if "concept" in (tuned := parse_tensors(self.results[-1])):
            tensors["concept"] = tuned["concept"]
        return ConceptTokens.from_tensors(self.name, tensors)

    def key_values(self) -> dict[str, Tensor]:
        """The tuned W_k, W_v by the base's names, in fp32; empty where they are the base's own."""
        from cictl.engine.checkpoint import parse_tensors

        if self.source not in ("finetune", "custom-diffusion"):
            return {}
        tensors = parse_tensors(self.results[-1])
        return {name: weight for name, weight in tensors.items() if name.endswith((".to_k.weight", ".to_v.weight"))}


def require_inverted(workspace: Workspace, observe: Observer) -> Checkpoint:
    """The newest checkpoint of stage 1 whose result is whole, with a warning for each that is passed over.

    Raises:
        StateError: there is none.
    """
    checkpoint, damaged = latest_checkpoint(workspace.stage_folder("invert"), verify=RESULT)
    if checkpoint is None and damaged:
        raise none_is_whole("invert", damaged)
    if checkpoint is None:
        raise StateError(f"stage 1 has not been run in {workspace.called}", "cictl invert", slug="stage-1-not-run")
    for line in damaged:
        observe(Warned(line))
    return checkpoint


def last_stage(source: Source | None) -> Stage:
    """The last stage that ``source`` may come from, whose --set counts."""
    return source if source in METHODS else "finetune"


def furthest_stage(workspace: Workspace) -> Stage:
    """The stage that is meant where none is named."""
    tuned, _ = latest_checkpoint(workspace.stage_folder("finetune"), verify=False)
    return "finetune" if tuned and tuned.step else "invert"


def find_concept(
    workspace: Workspace, source: Source | None, observe: Observer, step: int | None = None, *, kept: Checkpoint | None = None
) -> Concept:
    """The concept from the last checkpoints, of the furthest stage unless ``source`` says which.

    A training that is still going on is no obstacle: its last checkpoint is used, and a warning says so. Of what is read,
    the sha256 is compared, and of nothing else: snapshots and what only training needs may take gigabytes.

    Args:
        source: a stage, another method, or base.
        step: of that stage, what it had learned after so many steps in place of the last one, if it has been kept.
        kept: that, where the caller has found it whole.

    Raises:
        UsageError: a step of the base.
        StateError: the stage has not been run, or has kept nothing of that step; the message lists what it has.
    """
    if source == "base":
        if step is not None:
            raise UsageError("the untouched base model has no steps", "leave out --step", slug="base-without-steps")
        return Concept("base", "", ())
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):  # a training replaced the checkpoint between two looks at it, or put it aside
            found = kept or (_kept_of(workspace, source, step) if source and step else None)
            if source in METHODS:
                return _find_learned(workspace, source, observe, step, found)
            return _find_concept(workspace, source, observe, step, found)
    raise StateError(
        "the checkpoints change faster than they can be read",
        "try again, or raise checkpoint.interval",
        slug="checkpoints-restless",
    )


def _find_learned(workspace: Workspace, method: Method, observe: Observer, step: int | None, kept: Checkpoint | None) -> Concept:
    """What another method has learned."""
    checkpoint = kept or _last_of(workspace, method, observe)
    if step is None:
        _warn_if_unfinished(checkpoint, observe)
    elif checkpoint.step != step:
        raise _not_kept(workspace, method, step)
    result = (checkpoint.folder / RESULT).read_bytes()
    return Concept(method, str(checkpoint.manifest["concept"]), [checkpoint], [result])


def _last_of(workspace: Workspace, method: Method, observe: Observer) -> Checkpoint:
    checkpoint, damaged = latest_checkpoint(workspace.stage_folder(method), verify=RESULT)
    if checkpoint is None and damaged:
        raise none_is_whole(method, damaged)
    if checkpoint is None or checkpoint.step == 0:
        raise StateError(
            f"{TITLES[method]} has not been trained in {workspace.called}",
            f"for example: {command_of(method)} --noun teapot" if method in NEED_A_NOUN else command_of(method),
            slug="method-not-trained",
        )
    for line in damaged:
        observe(Warned(line))
    return checkpoint


def _warn_if_unfinished(checkpoint: Checkpoint, observe: Observer) -> None:
    if not checkpoint.complete:
        command = command_of(checkpoint.manifest["stage"])
        observe(Warned(f"{command} is at {checkpoint.step} of {checkpoint.manifest['steps']} steps"))


def _find_concept(
    workspace: Workspace, source: Source | None, observe: Observer, step: int | None, kept: Checkpoint | None
) -> Concept:
    """What our own stages have learned."""
    inverted = kept if kept and source == "invert" else require_inverted(workspace, observe)
    if inverted.step == 0:
        raise StateError(
            "stage 1 has no checkpoint with a step yet", "wait for its first one, or: cictl invert", slug="stage-1-not-begun"
        )
    checkpoints = [inverted]
    if source != "invert" and (tuned := kept or _last_tuned(workspace, source, observe)):
        checkpoints.append(tuned)
    stage: Stage = "finetune" if len(checkpoints) == 2 else "invert"
    if step is not None and checkpoints[-1].step != step:
        earlier = _kept_of(workspace, stage, step)
        if earlier is None:
            raise _not_kept(workspace, stage, step)
        checkpoints[-1] = earlier
    for checkpoint in checkpoints if step is None else checkpoints[:-1]:
        _warn_if_unfinished(checkpoint, observe)
    first = checkpoints[0]
    made_from = checkpoints[-1].manifest["fingerprint"]["fields"].get(INVERTED, first.result_hash)
    if stage == "finetune" and made_from != first.result_hash:
        raise StateError(
            "stage 2 was trained on the tokens of an earlier run of stage 1",
            "cictl finetune --restart, or take --stage invert",
            slug="stage-2-outdated",
        )
    results = [(checkpoint.folder / RESULT).read_bytes() for checkpoint in checkpoints]
    return Concept(stage, str(inverted.manifest["concept"]), checkpoints, results)


def _last_tuned(workspace: Workspace, source: Source | None, observe: Observer) -> Checkpoint | None:
    """What stage 2 has learned; nothing if it has not been run and ``source`` does not ask for it."""
    tuned, damaged = latest_checkpoint(workspace.stage_folder("finetune"), verify=RESULT)
    if tuned is None and damaged and source == "finetune":
        raise none_is_whole("finetune", damaged)
    for line in damaged:
        observe(Warned(line))
    if tuned and tuned.step:
        return tuned
    if source == "finetune":
        raise StateError("stage 2 has not been run", "cictl finetune, or take --stage invert", slug="stage-2-not-run")
    return None


def _kept_of(workspace: Workspace, stage: Stage, step: int) -> Checkpoint | None:
    """What ``stage`` had learned after ``step`` steps, if that is there and whole, as a last checkpoint or as a snapshot."""
    folder = workspace.stage_folder(stage)
    found = (read_checkpoint(shelf / step_folder(step), verify=RESULT)[0] for shelf in (folder, folder / SNAPSHOTS))
    return next((one for one in found if one and one.step), None)


def _not_kept(workspace: Workspace, stage: Stage, step: int) -> StateError:
    folder = workspace.stage_folder(stage)
    last = (read_checkpoint(one, verify=RESULT)[0] for one in checkpoint_folders(folder))
    kept = sorted({one.step for one in (*snapshots(folder), *last) if one and one.step})
    if not kept:  # though a last checkpoint had been found
        raise FileNotFoundError(folder)
    return StateError(
        f"{command_of(stage)} has kept nothing of step {step}, but of: {', '.join(map(str, kept))}",
        f"--step {kept[-1]}, or leave --step out (checkpoint.snapshots says how much is kept along the way)",
        slug="step-not-kept",
    )

"""What training has found so far: the tokens, the tuned K, V, and the checkpoints they come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cictl.data.prompts import token_names
from cictl.errors import StateError
from cictl.events import Observer, Warned
from cictl.files import sha256_bytes
from cictl.models.hub import is_commit
from cictl.records import RESULT, Checkpoint, checkpoint_folders, latest_checkpoint, read_checkpoint
from cictl.workflow.stage import none_is_whole
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.models.concept_tokens import ConceptTokens
    from cictl.models.stable_diffusion import StableDiffusion

Source = Literal["finetune", "invert", "base"]
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
        source: finetune (tokens and tuned K, V), invert (tokens alone), or base (neither).
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
    def inverted(self) -> Checkpoint:
        """The checkpoint of stage 1."""
        return self.checkpoints[0]

    def layout(self) -> TokenLayout:
        """How many vectors the tokens have, read from the header of their file alone."""
        header = json.loads(self.results[0][8 : 8 + int.from_bytes(self.results[0][:8], "little")])
        shapes = {key: value["shape"] for key, value in header.items() if key != "__metadata__"}
        keys = sorted(key.removeprefix("auxiliary.") for key in shapes if key.startswith("auxiliary."))
        auxiliary = shapes[f"auxiliary.{keys[0]}"][0] if keys else 0
        return TokenLayout(token_names(self.name, shapes["concept"][0]), keys, auxiliary)

    def tokens(self) -> ConceptTokens:
        """S* and the A_i*."""
        from cictl.engine.checkpoint import parse_tensors
        from cictl.models.concept_tokens import ConceptTokens

        return ConceptTokens.from_tensors(self.name, parse_tensors(self.results[0]))

    def key_values(self) -> dict[str, Tensor]:
        """The tuned W_k, W_v by the base's names, in fp32; empty before stage 2."""
        from cictl.engine.checkpoint import parse_tensors

        return parse_tensors(self.results[1]) if self.source == "finetune" else {}

    def install(self, model: StableDiffusion) -> None:
        """Make ``model`` know the concept."""
        from cictl.models.attention_processors import TunedCrossAttention

        if self.source != "base":
            model.add_tokens(self.tokens())
        if key_values := self.key_values():
            TunedCrossAttention(model.unet, key_values).inject()


def require_inverted(workspace: Workspace) -> Checkpoint:
    """The newest whole checkpoint of stage 1.

    Raises:
        StateError: there is none.
    """
    checkpoint, damaged = latest_checkpoint(workspace.stage_folder("invert"))
    if checkpoint is None and damaged:
        raise none_is_whole("invert", damaged)
    if checkpoint is None:
        raise StateError(f"stage 1 has not been run in {workspace.shown(workspace.root)}", "cictl invert", slug="stage-1-not-run")
    return checkpoint


def find_concept(workspace: Workspace, source: Source | None, observe: Observer, step: int | None = None) -> Concept:
    """The concept from the last checkpoints, of the furthest stage unless ``source`` says which.

    A training that is still going on is no obstacle: its last checkpoint is used, and a warning says so.

    Args:
        step: of that stage, the checkpoint after so many steps in place of the last one.

    Raises:
        StateError: the stage has not been run, or has no checkpoint of that step; the message lists those it has.
    """
    if source == "base":
        return Concept("base", "", ())
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):  # a training replaced the checkpoint between two looks at it
            return _find_concept(workspace, source, observe, step)
    raise StateError(
        "the checkpoints change faster than they can be read",
        "try again, or raise checkpoint.interval",
        slug="checkpoints-restless",
    )


def _find_concept(workspace: Workspace, source: Source | None, observe: Observer, step: int | None) -> Concept:
    inverted = require_inverted(workspace)
    if inverted.step == 0:
        raise StateError(
            "stage 1 has no checkpoint with a step yet", "wait for its first one, or: cictl invert", slug="stage-1-not-begun"
        )
    name = str(inverted.manifest["concept"])
    checkpoints = [inverted]
    if source != "invert":
        tuned, damaged = latest_checkpoint(workspace.stage_folder("finetune"))
        for line in damaged:
            observe(Warned(line))
        if tuned and tuned.step:
            checkpoints.append(tuned)
        elif source == "finetune":
            raise StateError("stage 2 has not been run", "cictl finetune, or take --stage invert", slug="stage-2-not-run")
    if step is not None:
        checkpoints[-1] = _checkpoint_of(workspace, "finetune" if len(checkpoints) == 2 else "invert", step)
        inverted = checkpoints[0]
    for checkpoint in checkpoints:
        if not checkpoint.complete:
            observe(
                Warned(f"cictl {checkpoint.manifest['stage']} is at {checkpoint.step} of {checkpoint.manifest['steps']} steps")
            )
    made_from = checkpoints[-1].manifest["fingerprint"]["fields"].get("result of cictl invert", inverted.result_hash)
    if len(checkpoints) == 2 and made_from != inverted.result_hash:
        raise StateError(
            "stage 2 was trained on the tokens of an earlier run of stage 1",
            "cictl finetune --restart, or take --stage invert",
            slug="stage-2-outdated",
        )
    results = [(checkpoint.folder / RESULT).read_bytes() for checkpoint in checkpoints]
    return Concept("finetune" if len(checkpoints) == 2 else "invert", name, checkpoints, results)


def _checkpoint_of(workspace: Workspace, stage: str, step: int) -> Checkpoint:
    folders = checkpoint_folders(workspace.stage_folder(stage))
    kept = [one for one in (read_checkpoint(folder)[0] for folder in folders) if one and one.step]
    for checkpoint in kept:
        if checkpoint.step == step:
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in reversed(kept))
    raise StateError(
        f"cictl {stage} has no checkpoint of step {step}; there are: {steps}",
        f"--step {kept[0].step}, or leave --step out (a training keeps its last two checkpoints)",
        slug="step-not-kept",
    )


def require_same_base(checkpoints: Sequence[Checkpoint], identity: str) -> None:
    """The base model must be the one that the checkpoints were trained on.

    Raises:
        StateError: it is another.
    """
    for checkpoint in checkpoints:
        fields = checkpoint.manifest["fingerprint"]["fields"]
        trained_on = fields.get("identity.model")
        if trained_on not in (None, identity):
            was, commit = fields.get("model.id"), is_commit(trained_on)
            revision = trained_on if commit else fields.get("model.revision") or "null"
            raise StateError(
                f"the concept was learned on another base model: {was} with the {'commit' if commit else 'digest'} "
                f"{trained_on[:12]}, not {identity[:12]}",
                f"set model.id to {was} and model.revision to {revision} in ci.yaml (or with --set), or: cictl invert --restart",
                slug="base-changed",
            )

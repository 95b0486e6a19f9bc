"""`cictl finetune`: stage 2, disentangled cross-attention fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from cictl.config import InvertConfig
from cictl.data.prompts import expand
from cictl.errors import StateError
from cictl.events import Observer, ignore
from cictl.processes import launched
from cictl.records import RESULT, Checkpoint
from cictl.workflow.beginning import Beginning
from cictl.workflow.concept import require_inverted
from cictl.workflow.pins import find_base
from cictl.workflow.prepared import Prepared
from cictl.workflow.stage import configure, is_over, require_same_base
from cictl.workflow.training import TrainingOutcome, run_stage
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    restart: bool = False,
    dry_run: bool = False,
) -> TrainingOutcome:
    """Train K, V on S* and K^a, V^a on the A_i*, or go on training them.

    Raises:
        StateError: stage 1 is not done; else see :func:`run_stage`.
    """
    inverted = require_inverted(workspace, observe if launched()[0] == 0 else ignore)
    first = configure(workspace, overrides or {}, fresh=restart).invert
    if not can_be_tuned(inverted, first):
        as_it_is = f"; to take it as it is: cictl finetune --set invert.steps={inverted.step}" if inverted.step else ""
        raise StateError(
            f"stage 1 is not done: {inverted.step} of {first.steps} steps",
            f"cictl invert goes on with it{as_it_is}",
            slug="stage-1-unfinished",
        )
    prepare = partial(_prepare, inverted)
    return run_stage(workspace, "finetune", prepare, observe, overrides=overrides or {}, restart=restart, dry_run=dry_run)


def can_be_tuned(inverted: Checkpoint, settings: InvertConfig) -> bool:
    """Whether stage 2 takes a stage 1: one that came to the end of its own run, or has what ``settings`` ask for now."""
    return inverted.complete or is_over("invert", inverted, settings)


def _prepare(inverted: Checkpoint, start: Beginning, runtime: Runtime, observe: Observer) -> Prepared:
    import torch

    from cictl.engine.checkpoint import read_tensors
    from cictl.methods.disentangled_finetuning import DisentangledFinetuning
    from cictl.models.concept_tokens import ConceptTokens
    from cictl.workflow.base_model import encode_photographs, open_to_train, previewer, prompt_encoder

    config = start.config
    base = find_base(config, start.pins, observe)
    require_same_base([inverted], base.identity)
    model = open_to_train(config, "finetune", base, runtime, observe)
    encoded = encode_photographs(model, start.photographs, config.data.resolution, None, observe)
    tokens = ConceptTokens.from_tensors(config.concept.name, read_tensors(inverted, RESULT))
    model.add_tokens(tokens)
    method = DisentangledFinetuning(model, tokens, encoded, config.finetune)
    encode = prompt_encoder(model, expand(config.preview.prompt, tokens.concept_names))
    if not method.rates:  # the contexts of a frozen S* never change
        with torch.no_grad():
            contexts = encode()
        model.free_text_encoder()
    preview = previewer(start.workspace, "finetune", config, model, encode if method.rates else lambda: contexts, observe)
    return Prepared(method, encoded, preview, model.timesteps, rates=method.rates)

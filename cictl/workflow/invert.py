"""`cictl invert`: stage 1, Contrastive Inversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cictl.data.prompts import expand
from cictl.events import Note, Observer
from cictl.workflow.beginning import Beginning
from cictl.workflow.pins import find_base, find_clip
from cictl.workflow.prepared import Prepared
from cictl.workflow.stage import reads_clip
from cictl.workflow.starts import Sight, find_starts
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
    """Train S* and the A_i*, or go on training them; see :func:`run_stage` for what it raises."""
    return run_stage(workspace, "invert", _prepare, observe, overrides=overrides or {}, restart=restart, dry_run=dry_run)


def _prepare(start: Beginning, runtime: Runtime, observe: Observer) -> Prepared:
    from cictl.methods.contrastive_inversion import ContrastiveInversion
    from cictl.models.clip import own_text_tower, text_projection
    from cictl.models.concept_tokens import initial_tokens, inject_tokens
    from cictl.workflow.base_model import encode_photographs, open_to_train, previewer, prompt_encoder

    config, settings, photographs = start.config, start.config.invert, start.photographs
    base = find_base(config, start.pins, observe)
    read = reads_clip(config, "invert")
    clip = find_clip(config, start.pins, observe) if read else None  # before anything large is loaded, since it may fail
    model = open_to_train(config, "invert", base, runtime, observe)
    encoded = encode_photographs(model, photographs, config.data.resolution, clip, observe)
    tower = own_text_tower(clip, model) if clip else None
    if tower is not None:
        observe(Note(f"the text encoder of {config.model.id} is not that of {config.model.clip}: Eq. 2 uses the latter's"))
    projection = text_projection(clip).to(model.device) if clip else None
    sight = Sight(encoded.embeddings, projection, tower)
    starts = runtime.processes.share(lambda: find_starts(start.workspace, config, model, photographs, sight, observe))
    tokens = initial_tokens(
        model.tokenizer,
        model.text_encoder,
        name=config.concept.name,
        vectors=config.concept.vectors,
        start=starts.concept,
        keys=encoded.keys,
        auxiliary_vectors=settings.auxiliary_vectors,
        auxiliary_start=starts.auxiliary,
        seed=config.seed,
    )
    if tower is not None:
        inject_tokens(model.tokenizer, tower, tokens)  # before the base, so that both give the tokens the same ids
    model.add_tokens(tokens)
    method = ContrastiveInversion(model, tokens, encoded, projection, settings, tower)
    encode = prompt_encoder(model, expand(config.preview.prompt, tokens.concept_names))
    preview = previewer(start.workspace, "invert", config, model, encode, observe)
    return Prepared(method, encoded, preview, model.timesteps)

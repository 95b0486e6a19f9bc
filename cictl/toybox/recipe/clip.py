"""Component ``clip``: an image tower and both projections for the text encoder that the UNet reads from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.toybox.recipe.data import load_pool
from cictl.toybox.recipe.loop import Recipe, Worker, train
from cictl.toybox.recipe.networks import PROJECTION_WIDTH, TEXT_WIDTH, vision_config
from cictl.toybox.recipe.text import SIZES, attribute_loss, labels, load_tokenizer, tokenize, trained_text_encoder
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.world.captions import caption

_BATCH = 64  # a process
_LOGIT_SCALE = 20.0


def new_tower() -> Any:
    """An untrained image tower with its projection."""
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(vision_config())


def pooled_text(encoder: Any, ids: Tensor, end_id: int) -> Tensor:
    """The state at the first end mark, [B, 128]."""
    states: Tensor = encoder(input_ids=ids).last_hidden_state
    return states[torch.arange(len(ids)), (ids == end_id).int().argmax(1)]


def train_clip(worker: Worker, minutes: float) -> None:
    """Symmetric InfoNCE between pictures and captions; heads that name attributes help, and are thrown away."""
    scenes, pictures, _ = load_pool(worker.work)
    indices = torch.tensor([labels(scene) for scene in scenes], device=worker.device)
    tokenizer = load_tokenizer(worker.work / "tokenizer")
    encoder = trained_text_encoder(worker.work, tokenizer).to(worker.device)
    torch.manual_seed(0)
    tower = new_tower().to(worker.device)
    projection = nn.Linear(TEXT_WIDTH, PROJECTION_WIDTH, bias=False).to(worker.device)
    heads = nn.Linear(PROJECTION_WIDTH, sum(SIZES)).to(worker.device)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(pictures), _BATCH)
        x = to_pixels(pictures[chosen], worker.device)
        seen = tower(pixel_values=x).image_embeds
        ids = tokenize(tokenizer, [caption(scenes[index], rng) for index in chosen]).to(worker.device)
        with torch.no_grad():
            read = pooled_text(encoder, ids, tokenizer.eos_token_id)
        logits = _LOGIT_SCALE * F.normalize(projection(read), dim=-1) @ F.normalize(seen, dim=-1).T
        own = torch.arange(_BATCH, device=worker.device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        accuracy = (logits.argmax(1) == own).float().mean().item()
        return contrast + attribute_loss(heads(seen), indices[chosen]), {"contrast": contrast.item(), "found": accuracy}

    recipe = Recipe("clip", {"tower": 1e-3, "projection": 1e-3, "heads": 3e-3}, minutes, decay_from=0.4, ema=0.995)
    train(recipe, worker, {"tower": tower, "projection": projection, "heads": heads}, loss)

"""Component ``clip``: an image tower and both projections for the text encoder that the UNet reads from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.toybox.recipe.changes import rivals
from cictl.toybox.recipe.data import load_pool
from cictl.toybox.recipe.judge import shifted
from cictl.toybox.recipe.loop import Recipe, Worker, train
from cictl.toybox.recipe.networks import PROJECTION_WIDTH, TEXT_WIDTH, vision_config
from cictl.toybox.recipe.text import SIZES, attribute_loss, labels, load_tokenizer, tokenize, trained_text_encoder
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.world.captions import caption

_BATCH = 32  # a process
_RIVALS = 3  # captions of a picture that are wrong in one attribute
_LOGIT_SCALE = 20.0
# What the tower is slow to see by itself: small, or fine. InfoNCE alone left the companion's shape at chance.
_NAMED_LOUDER = {"pattern": 3.0, "companion shape": 8.0}


def new_tower() -> Any:
    """An untrained image tower with its projection."""
    from transformers import CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(vision_config())


def pooled_text(encoder: Any, ids: Tensor, end_id: int) -> Tensor:
    """The state at the first end mark, [B, 128]."""
    states: Tensor = encoder(input_ids=ids).last_hidden_state
    return states[torch.arange(len(ids)), (ids == end_id).int().argmax(1)]


def train_clip(worker: Worker, minutes: float) -> None:
    """Find each picture's caption, and each caption's picture (symmetric InfoNCE), and the caption among rivals.

    InfoNCE within a batch is soon solved by the most visible attributes. Rivals differ in one attribute alone, so that
    each of them has to be told apart. Heads that name attributes help the tower, and are thrown away.
    """
    scenes, pictures, _ = load_pool(worker.work)
    indices = torch.tensor([labels(scene) for scene in scenes], device=worker.device)
    tokenizer = load_tokenizer(worker.work / "tokenizer")
    encoder = trained_text_encoder(worker.work, tokenizer).to(worker.device)
    torch.manual_seed(0)
    tower = new_tower().to(worker.device)
    projection = nn.Linear(TEXT_WIDTH, PROJECTION_WIDTH, bias=False).to(worker.device)
    heads = nn.Linear(PROJECTION_WIDTH, sum(SIZES)).to(worker.device)

    def read(captions: list[str]) -> Tensor:
        ids = tokenize(tokenizer, captions).to(worker.device)
        longest = int((ids == tokenizer.eos_token_id).int().argmax(1).max()) + 1  # what follows is not looked at
        with torch.no_grad():
            states = pooled_text(encoder, ids[:, :longest], tokenizer.eos_token_id)
        return F.normalize(projection(states), dim=-1)

    beside = np.array([index for index, scene in enumerate(scenes) if scene.companion])

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(pictures), _BATCH)
        chosen[: _BATCH // 2] = rng.choice(beside, _BATCH // 2)  # companions are small and in one picture of five
        drawn = [scenes[index] for index in chosen]
        embeds = tower(pixel_values=shifted(to_pixels(pictures[chosen], worker.device), rng)).image_embeds
        seen = F.normalize(embeds, dim=-1)
        logits = _LOGIT_SCALE * read([caption(scene, rng) for scene in drawn]) @ seen.T
        own = torch.arange(_BATCH, device=worker.device)
        contrast = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        options = [caption(other, rng, full=True) for scene in drawn for other in (scene, *rivals(scene, rng, _RIVALS))]
        near = _LOGIT_SCALE * torch.einsum("brd,bd->br", read(options).view(_BATCH, 1 + _RIVALS, -1), seen)
        choice = F.cross_entropy(near, torch.zeros_like(own))
        numbers = {"contrast": contrast.item(), "choice": choice.item(), "right": (near.argmax(1) == 0).float().mean().item()}
        return contrast + choice + attribute_loss(heads(embeds), indices[chosen], _NAMED_LOUDER), numbers

    recipe = Recipe("clip", {"tower": 1e-3, "projection": 1e-3, "heads": 3e-3}, minutes, decay_from=0.4, ema=0.995)
    train(recipe, worker, {"tower": tower, "projection": projection, "heads": heads}, loss)

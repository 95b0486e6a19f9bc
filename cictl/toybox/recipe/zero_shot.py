"""What the toybox's CLIP knows without having been told: captions and attributes of pictures that no training saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.models.clip import embed_images, text_projection
from cictl.models.locate import Located
from cictl.models.stable_diffusion import StableDiffusion
from cictl.toybox.recipe.changes import CHANGES, can_tell
from cictl.toybox.recipe.data import held_out_pool
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.world.captions import caption
from cictl.toybox.world.scene import Scene


def retrieval(folder: Path, model: StableDiffusion, count: int = 640, among: int = 64) -> float:
    """How often the full caption of a picture that was never seen is found among ``among``."""
    scenes, seen = _unseen(folder, count)
    rng = np.random.default_rng(0)
    similar = seen @ _read(folder, model, [caption(scene, rng, full=True) for scene in scenes]).T
    hits = [
        int(similar[start + i, start : start + among].argmax()) == i for start in range(0, count, among) for i in range(among)
    ]
    return sum(hits) / len(hits)


def attributes_zero_shot(folder: Path, model: StableDiffusion, count: int = 200) -> dict[str, float]:
    """How often, among full captions that differ in one attribute alone, the right one is nearest to the picture."""
    scenes, seen = _unseen(folder, count)
    rng = np.random.default_rng(0)
    shares = {}
    for name, change in CHANGES.items():
        right = []
        for scene, picture in zip(scenes, seen, strict=True):
            if can_tell(name, scene):
                options = change(scene)
                near = _read(folder, model, [caption(option, rng, full=True) for option in options]) @ picture
                right.append(options[int(near.argmax())] == scene)
        shares[name] = float(np.mean(right))
    return shares


@torch.no_grad()
def _unseen(folder: Path, count: int) -> tuple[list[Scene], Tensor]:
    """Scenes that no training saw, and the unit embeddings of their pictures [n, 128]."""
    scenes, pictures = held_out_pool(count)
    seen = embed_images(Located("toybox", folder / "clip", ""), list(to_pixels(pictures).numpy()), torch.device("cpu"))
    return scenes, F.normalize(seen, dim=-1)


@torch.no_grad()
def _read(folder: Path, model: StableDiffusion, captions: list[str]) -> Tensor:
    """Unit embeddings of captions [n, 128]."""
    projection = text_projection(Located("toybox", folder / "clip", ""))
    return F.normalize(model.text_embedding(model.tokenize(captions), projection), dim=-1)

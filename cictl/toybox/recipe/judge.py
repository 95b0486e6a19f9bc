"""Component ``judge``: a small classifier that reads pictures of the world, independent of the toybox's CLIP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.toybox.judge import Judge
from cictl.toybox.recipe.data import load_pool
from cictl.toybox.recipe.loop import Recipe, Worker, load_average, train
from cictl.toybox.recipe.text import SIZES, attribute_loss, labels
from cictl.toybox.recipe.vae import to_pixels

_BATCH = 32  # a process
_NOISE = 0.1
_SHIFT = 3  # pixels


def train_judge(worker: Worker, minutes: float) -> None:
    """Name the attributes of pictures that are a little shifted, blurred and noisy, as generated ones are."""
    scenes, pictures, _ = load_pool(worker.work)
    indices = torch.tensor([labels(scene) for scene in scenes], device=worker.device)
    torch.manual_seed(0)
    judge = Judge(sum(SIZES)).to(worker.device)
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(pictures), _BATCH)
        x = _spoiled(to_pixels(pictures[chosen], worker.device), rng)
        return attribute_loss(judge(x.contiguous(memory_format=torch.channels_last)), indices[chosen]), {}

    train(Recipe("judge", {"judge": 2e-3}, minutes, decay_from=0.3, ema=0.995), worker, {"judge": judge}, loss)


def shifted(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures [B, 3, H, W], all moved by the same few pixels."""
    left, top = rng.integers(0, 2 * _SHIFT + 1, 2)
    return F.pad(x, (_SHIFT,) * 4, mode="replicate")[..., top : top + x.shape[-2], left : left + x.shape[-1]]


def _spoiled(x: Tensor, rng: np.random.Generator) -> Tensor:
    x = shifted(x, rng)
    blurred = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    x = torch.lerp(x, blurred, float(rng.random()))
    return x + _NOISE * float(rng.random()) * torch.randn_like(x)


def trained_judge(work: Path) -> Judge:
    """The averaged judge."""
    judge = Judge(sum(SIZES))
    judge.load_state_dict(load_average(work, "judge", "judge"))
    return judge.eval().requires_grad_(False)

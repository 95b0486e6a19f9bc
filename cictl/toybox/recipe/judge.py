"""Component ``judge``: a small classifier that reads pictures of the world, independent of the toybox's CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cictl.toybox.judge import Judge
from cictl.toybox.recipe.data import held_out_pool, load_pool
from cictl.toybox.recipe.loop import Recipe, Worker, load_average, train
from cictl.toybox.recipe.text import ATTRIBUTES, SIZES, attribute_loss, labels
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.world.scene import Scene

_BATCH = 32  # a process
_NOISE = 0.1


def train_judge(worker: Worker, minutes: float) -> None:
    """Name the attributes of pictures, mirrored and a little noisy."""
    scenes, pictures, _ = load_pool(worker.work)
    truth = torch.tensor([labels(scene) for scene in scenes], device=worker.device)
    torch.manual_seed(0)
    judge = Judge(sum(SIZES)).to(worker.device)
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(pictures), _BATCH)
        x = to_pixels(pictures[chosen], worker.device)
        x = x.flip(-1) if rng.random() < 0.5 else x
        x = x + _NOISE * rng.random() * torch.randn_like(x)
        return attribute_loss(judge(x.contiguous(memory_format=torch.channels_last)), truth[chosen]), {}

    train(Recipe("judge", {"judge": 2.5e-3}, minutes, decay_from=0.2, ema=0.99), worker, {"judge": judge}, loss)


def trained_judge(work: Path) -> Judge:
    """The averaged judge."""
    judge = Judge(sum(SIZES))
    judge.load_state_dict(load_average(work, "judge", "judge"))
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(judge: nn.Module, pictures: Tensor, scenes: Sequence[Scene]) -> dict[str, float]:
    """The share of pictures [n, 3, 64, 64] whose attribute the judge reads as the scene has it.

    Colours are not counted in sketches, which have none; the accent only where there is one.
    """
    logits = torch.cat([judge(part) for part in pictures.split(50)])
    truth = torch.tensor([labels(scene) for scene in scenes])
    coloured = torch.tensor([scene.style != "sketch" for scene in scenes])
    patterned = torch.tensor([scene.accent is not None for scene in scenes])
    counted = {"colour": coloured, "accent": coloured & patterned}
    result = {}
    for index, (name, part) in enumerate(zip(ATTRIBUTES, logits.split(SIZES, 1), strict=True)):
        right = part.argmax(1) == truth[:, index]
        kept = counted.get(name, torch.ones(len(scenes), dtype=torch.bool))
        result[name] = round(right[kept].float().mean().item(), 3) if kept.any() else float("nan")
    return result


def held_out_pixels(count: int) -> tuple[list[Scene], Tensor]:
    """Scenes and pictures that no training saw."""
    scenes, pictures = held_out_pool(count)
    return scenes, to_pixels(pictures)

"""The judge: it reads a picture of the toybox's world, with an eye of its own (nothing of CLIP or UNet is in it)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cictl.toybox.world.truth import ATTRIBUTES

FOLDER = "judge"  # inside the toybox's folder
_CHUNK = 64

Reading = dict[str, str]


class Judge(nn.Module):
    """A small convolutional classifier: pictures [B, 3, 64, 64] in [-1, 1] to logits [B, outputs]."""

    def __init__(self, outputs: int) -> None:
        super().__init__()

        def layer(inputs: int, channels: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
            return nn.Sequential(convolution, nn.GroupNorm(8, channels), nn.ReLU())

        self.features = nn.Sequential(
            layer(3, 32, 2), layer(32, 32, 1), layer(32, 64, 2), layer(64, 64, 1), layer(64, 96, 2), layer(96, 96, 1),
            layer(96, 128, 2),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU(), nn.Linear(256, outputs))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.features(pictures))


def load_judge(toybox: Path) -> Judge:
    """The judge that ships in the toybox's folder."""
    known = _config(toybox)["attributes"]
    if {name: tuple(values) for name, values in known.items()} != ATTRIBUTES:
        raise ValueError(f"the judge in {toybox} was trained for another world")
    judge = Judge(sum(map(len, ATTRIBUTES.values())))
    judge.load_state_dict({key: value.float() for key, value in load_file(toybox / FOLDER / "model.safetensors").items()})
    return judge.eval().requires_grad_(False)


def reliability(toybox: Path) -> dict[str, float]:
    """The share of pictures that no training saw whose attribute the shipped judge reads right."""
    return {name: float(share) for name, share in _config(toybox)["accuracy"].items()}


@torch.no_grad()
def read(judge: nn.Module, pictures: np.ndarray) -> list[Reading]:
    """What the judge sees in pictures [n, 64, 64, 3] of bytes: a value for each of ATTRIBUTES."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    logits = torch.cat([judge(part) for part in pixels.split(_CHUNK)])
    parts = logits.split([len(values) for values in ATTRIBUTES.values()], 1)
    best = [part.argmax(1).tolist() for part in parts]
    return [
        {name: values[column[row]] for (name, values), column in zip(ATTRIBUTES.items(), best, strict=True)}
        for row in range(len(pictures))
    ]


def accuracy(readings: Sequence[Reading], truths: Sequence[Mapping[str, str | None]]) -> dict[str, float]:
    """The share of right readings of each attribute, among the pictures where it can be told.

    Args:
        truths: as :func:`cictl.toybox.world.truth.truth` gives them.
    """
    shares = {}
    for name in ATTRIBUTES:
        right = [reading[name] == own[name] for reading, own in zip(readings, truths, strict=True) if own[name] is not None]
        shares[name] = float(np.mean(right)) if right else float("nan")
    return shares


def _config(toybox: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((toybox / FOLDER / "config.json").read_text())
    return config

"""Other views of a photograph: mirrored, smaller or larger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cictl.data.pixels import to_training_pixels

_SMALLER = 0.66  # how often
_FAR, _NEAR = ("a far away ", "very small "), ("zoomed in ", "close up ")
_FAR_BELOW = 0.6  # of the side


@dataclass(frozen=True)
class View:
    """A photograph in another size.

    Attributes:
        pixels: [3, R, R] in [-1, 1]; grey where the photograph is not.
        mask: 1 where it is, but for its rim, [R / f, R / f] in float32.
        prefix: what the prompt begins with, with a space behind it, or nothing.
    """

    pixels: np.ndarray
    mask: np.ndarray
    prefix: str


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """[3, R, R], left and right exchanged."""
    return np.ascontiguousarray(pixels[:, :, ::-1])


def whole(image: Image.Image, resolution: int, reduction: int) -> View:
    """The centre square as it is."""
    return View(to_training_pixels(image, resolution), _full_mask(resolution, reduction), "")


def rescaled(image: Image.Image, resolution: int, reduction: int, generator: torch.Generator) -> View:
    """The centre square smaller, somewhere in a grey picture, or larger, and a part of it; the prefix says which.

    Custom Diffusion's augmentation (arXiv 2212.04488, as its public code has it): in 66 of 100 times the side is uniform
    between a third of R and R, else between 1.2 R and 1.4 R.

    Args:
        image: upright, RGB.
        resolution: R, in pixels.
        reduction: f, of the VAE: pixels a side of a latent position.
        generator: of all that is random in it.
    """
    smaller = float(torch.rand((), generator=generator)) < _SMALLER
    low, high = (resolution // 3, resolution + 1) if smaller else (int(1.2 * resolution), int(1.4 * resolution))
    size = _integer(low, high, generator)
    room = abs(resolution - size) + 1
    top, left = _integer(0, room, generator), _integer(0, room, generator)
    word = _integer(0, 2, generator)
    square = to_training_pixels(image, size)
    if size > resolution:
        part = np.ascontiguousarray(square[:, top : top + resolution, left : left + resolution])
        return View(part, _full_mask(resolution, reduction), _NEAR[word])
    pixels = np.zeros((3, resolution, resolution), np.float32)
    pixels[:, top : top + size, left : left + size] = square
    mask = np.zeros((resolution // reduction,) * 2, np.float32)
    mask[_inside(top, size, reduction), _inside(left, size, reduction)] = 1
    return View(pixels, mask, _FAR[word] if size < _FAR_BELOW * resolution else "")


def _full_mask(resolution: int, reduction: int) -> np.ndarray:
    return np.ones((resolution // reduction,) * 2, np.float32)


def _inside(start: int, size: int, reduction: int) -> slice:
    """The latent positions that see the photograph alone: without a rim of one, but one at least."""
    first = start // reduction + 1
    return slice(first, max((start + size) // reduction - 1, first + 1))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))

"""What photographs are like, before anything is trained on them. Pure functions of pixels; no torch.

Pictures are float32 [3, R, R] in [-1, 1], as :func:`cictl.data.photographs.load_pixels` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_RIM = 1 / 8  # of the side: the strip along top, left and right that is mostly background
_GRID = 16  # the side to which rims are reduced before they are compared


def sharpness(picture: np.ndarray) -> float:
    """The variance of the Laplacian of the grey picture, times 1000: low where it is out of focus, or flat.

    (Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".)
    """
    grey = picture.mean(0)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var() * 1000)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The mean difference of two pictures after reduction to 16 x 16, on a scale of 0 to 2."""
    return float(np.abs(_reduced(one) - _reduced(other)).mean())


def rim_difference(one: np.ndarray, other: np.ndarray) -> float:
    """The same along the rim (top, left, right): near 0 if both have the same background in the same place."""
    return float(np.abs(_reduced(one) - _reduced(other))[:, _rim()].mean())


def rim_variation(picture: np.ndarray) -> float:
    """How much the rim of a picture varies in itself: near 0 in front of a plain wall."""
    return float(_reduced(picture)[:, _rim()].std(1).mean())


def most_alike(pictures: Sequence[np.ndarray]) -> tuple[float, int, int]:
    """The smallest :func:`difference` between two pictures, and which two they are."""
    pairs = [(difference(pictures[i], pictures[j]), i, j) for j in range(len(pictures)) for i in range(j)]
    return min(pairs)


def _reduced(picture: np.ndarray) -> np.ndarray:
    side = picture.shape[-1] // _GRID * _GRID
    return picture[:, :side, :side].reshape(3, _GRID, side // _GRID, _GRID, side // _GRID).mean((2, 4))


def _rim() -> np.ndarray:
    width = max(1, round(_GRID * _RIM))
    mask = np.zeros((_GRID, _GRID), bool)
    mask[:width] = mask[:, :width] = mask[:, -width:] = True
    mask[-width:, width:-width] = False  # the lower edge is what things stand on, or their shadow
    return mask

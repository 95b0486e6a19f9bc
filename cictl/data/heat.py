"""Heat maps over pictures. Imports no torch."""

from __future__ import annotations

import numpy as np
from PIL import Image

# From dark blue over violet and orange to light yellow: its lightness rises evenly, so that it can be read in grey too.
_COLOURS = np.array([(0, 0, 30), (70, 10, 105), (155, 30, 95), (220, 75, 50), (250, 155, 30), (252, 250, 160)], float)
_STRENGTH = 0.7


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture in grey under the colours of ``heat``, which is scaled to its own range: what is least is dark, most is light.

    Args:
        picture: [H, W, 3] of bytes.
        heat: [h, w], of any size and range; a constant one is dark all over.

    Returns:
        [H, W, 3] of bytes.
    """
    height, width = picture.shape[:2]
    image = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    values = np.asarray(image, float)
    span = values.max() - values.min()
    share = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    stops = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(share, stops, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    grey = picture.mean(axis=-1, keepdims=True)
    return np.rint(_STRENGTH * colours + (1 - _STRENGTH) * grey).astype(np.uint8)

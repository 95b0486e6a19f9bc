"""What can be in a picture, and drawing one at random. Some combinations are never drawn: they are the concepts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

SHAPES = ("cube", "ball", "cone", "star", "heart", "ring", "teapot", "mug", "bottle", "mushroom")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.08, 0.10),
    "orange": (1.00, 0.55, 0.00),
    "yellow": (1.00, 0.93, 0.10),
    "green": (0.08, 0.60, 0.15),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.10, 0.20, 0.90),
    "purple": (0.55, 0.10, 0.75),
    "pink": (1.00, 0.50, 0.75),
    "white": (0.97, 0.97, 0.97),
    "black": (0.08, 0.08, 0.09),
}
PATTERNS = ("plain", "striped", "dotted", "checkered")
BACKGROUNDS = ("beach", "snow", "forest", "night", "brick", "meadow", "water", "room", "desert", "city")
STYLES = ("photo", "sketch", "cartoon")
POSES = ("upright", "tilted", "upside down", "lying", "floating")
COMPANION_SHAPES = SHAPES[:5]

_HELD_OUT_SHARE = 0.04
# The concept of the demo: whatever its background, style and pose, no training picture shows it.
DEMO_LOOK = ("teapot", "orange", "dotted", "purple")
# Overrides ("a cube-shaped teapot") that training never shows; the others are trained.
HELD_OUT_OVERRIDES = frozenset({("teapot", "cube"), ("mug", "star"), ("mushroom", "ball"), ("bottle", "heart")})


@dataclass(frozen=True)
class Scene:
    """The ground truth of a picture.

    Attributes:
        noun: what the thing is called.
        form: the shape that it is drawn as; another one than ``noun`` in "a cube-shaped teapot".
        colour: its main colour.
        accent: the second colour of its pattern; None if it is plain.
        pattern: one of PATTERNS.
        background: one of BACKGROUNDS.
        style: one of STYLES.
        pose: one of POSES.
        companion: shape and colour of a small thing beside it, or None.
    """

    noun: str
    form: str
    colour: str
    accent: str | None
    pattern: str
    background: str
    style: str = "photo"
    pose: str = "upright"
    companion: tuple[str, str] | None = None


def is_held_out(noun: str, colour: str, pattern: str, accent: str | None) -> bool:
    """Whether training never shows a thing of this look: the demo's, and about one look in 25."""
    if (noun, colour, pattern, accent) == DEMO_LOOK:
        return True
    digest = hashlib.sha256(f"{noun}/{colour}/{pattern}/{accent}".encode()).digest()
    return pattern != "plain" and digest[0] < 256 * _HELD_OUT_SHARE


def sample_scene(rng: np.random.Generator) -> Scene:
    """A scene of the training world."""
    while True:
        noun, colour = _choice(rng, SHAPES), _choice(rng, tuple(COLOURS))
        pattern = _choice(rng, PATTERNS, (0.34, 0.22, 0.22, 0.22))
        accent = None if pattern == "plain" else _choice(rng, tuple(name for name in COLOURS if name != colour))
        form = _choice(rng, SHAPES[:6]) if rng.random() < 0.08 else noun
        if not is_held_out(noun, colour, pattern, accent) and (noun, form) not in HELD_OUT_OVERRIDES:
            break
    return Scene(
        noun=noun,
        form=form,
        colour=colour,
        accent=accent,
        pattern=pattern,
        background=_choice(rng, BACKGROUNDS),
        style=_choice(rng, STYLES, (0.72, 0.14, 0.14)),
        pose=_choice(rng, POSES, (0.90, 0.025, 0.025, 0.025, 0.025)),
        companion=(_choice(rng, COMPANION_SHAPES), _choice(rng, tuple(COLOURS))) if rng.random() < 0.18 else None,
    )


def _choice(rng: np.random.Generator, items: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    return items[int(rng.choice(len(items), p=weights))]

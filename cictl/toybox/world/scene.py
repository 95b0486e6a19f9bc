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
BACKGROUNDS = ("beach", "snow", "forest", "night", "brick", "meadow", "water", "room", "desert", "city", "studio")
STYLES = ("photo", "sketch", "cartoon")
POSES = ("upright", "tilted", "upside down", "lying", "floating")
COMPANION_SHAPES = SHAPES[:5]
# What "a cube-shaped teapot" keeps of the teapot: spout, handle and knob. The other things have nothing of the kind.
PARTED = ("teapot", "mug", "bottle", "mushroom")
# Where a turn cannot be seen, it is not drawn: a ball has no upper side, and a tilted star stands on its head.
_UNTURNED = ("upright", "floating")
_POSES_OF = {"ball": _UNTURNED, "ring": _UNTURNED, "star": (*_UNTURNED, "upside down")}

_HELD_OUT_SHARE = 0.04
# The concept of the demo: whatever its background, style and pose, no training picture shows it.
DEMO_LOOK = ("teapot", "orange", "dotted", "purple")
_OVERRIDES = SHAPES[:6]
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


def poses_of(form: str) -> tuple[str, ...]:
    """The poses in which something of this form can be told from the others, "upright" first."""
    return _POSES_OF.get(form, POSES)


def sample_look(rng: np.random.Generator) -> tuple[str, str, str, str | None]:
    """Noun, colour, pattern and accent of anything, held out or not."""
    noun, colour = _choice(rng, SHAPES), _choice(rng, tuple(COLOURS))
    pattern = _choice(rng, PATTERNS, (0.28, 0.24, 0.24, 0.24))
    accent = None if pattern == "plain" else _choice(rng, tuple(name for name in COLOURS if name != colour))
    return noun, colour, pattern, accent


def sample_scene(rng: np.random.Generator) -> Scene:
    """A scene of the training world."""
    while True:
        noun, colour, pattern, accent = sample_look(rng)
        form = _choice(rng, _OVERRIDES) if rng.random() < 0.14 else noun
        looks = [(name, colour, pattern, accent) for name in (noun, form)]  # a star-shaped ball looks like a star
        if not any(is_held_out(*look) for look in looks) and (noun, form) not in HELD_OUT_OVERRIDES:
            break
    return Scene(
        noun=noun,
        form=form,
        colour=colour,
        accent=accent,
        pattern=pattern,
        background=_choice(rng, BACKGROUNDS),
        style=_choice(rng, STYLES, (0.70, 0.15, 0.15)),
        pose=_choice(rng, poses_of(form)[1:]) if rng.random() < 0.2 else "upright",
        companion=(_choice(rng, COMPANION_SHAPES), _choice(rng, tuple(COLOURS))) if rng.random() < 0.22 else None,
    )


def _choice(rng: np.random.Generator, items: tuple[str, ...], weights: tuple[float, ...] | None = None) -> str:
    return items[int(rng.choice(len(items), p=weights))]

"""Scenes that differ from another in one attribute alone: what CLIP must tell apart, and is asked to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cictl.toybox.world.scene import (
    BACKGROUNDS,
    COLOURS,
    COMPANION_SHAPES,
    PATTERNS,
    SHAPES,
    STYLES,
    Scene,
    is_held_out,
    poses_of,
)

CHANGES: dict[str, Callable[[Scene], list[Scene]]] = {
    "form": lambda scene: [replace(scene, noun=noun, form=noun) for noun in SHAPES],
    "colour": lambda scene: [replace(scene, colour=colour) for colour in COLOURS],
    "accent": lambda scene: [replace(scene, accent=colour) for colour in COLOURS],
    "pattern": lambda scene: [replace(scene, pattern=pattern) for pattern in PATTERNS[1:]],
    "background": lambda scene: [replace(scene, background=place) for place in BACKGROUNDS],
    "style": lambda scene: [replace(scene, style=style) for style in STYLES],
    "pose": lambda scene: [replace(scene, pose=pose) for pose in poses_of(scene.form)],
    "companion shape": lambda scene: [replace(scene, companion=(shape, _beside(scene)[1])) for shape in COMPANION_SHAPES],
    "companion colour": lambda scene: [replace(scene, companion=(_beside(scene)[0], colour)) for colour in COLOURS],
}

# How often an attribute is asked for, against the others' 1: the smaller or the rarer it is, the more often.
_OFTEN = {"pattern": 2.0, "companion shape": 4.0, "companion colour": 2.0}


def rivals(scene: Scene, rng: np.random.Generator, count: int) -> list[Scene]:
    """``count`` other scenes, all changed in the same attribute, drawn at random; some repeat where there are too few."""
    names = [name for name in CHANGES if can_tell(name, scene)]
    often = np.array([_OFTEN.get(name, 1.0) for name in names])
    others: list[Scene] = []
    while not others:
        options = CHANGES[names[int(rng.choice(len(names), p=often / often.sum()))]](scene)
        # A look that no picture of the training shows would be a rival always, and the answer never.
        others = [one for one in options if one != scene and not is_held_out(one.noun, one.colour, one.pattern, one.accent)]
    return [others[int(index)] for index in rng.choice(len(others), count, replace=len(others) < count)]


def can_tell(name: str, scene: Scene) -> bool:
    """Whether the scene has that attribute, visibly."""
    coloured = scene.style != "sketch"
    return {
        "form": scene.form == scene.noun,
        "colour": coloured,
        "accent": coloured and scene.accent is not None,
        "pattern": scene.accent is not None,
        "companion shape": scene.companion is not None,
        "companion colour": coloured and scene.companion is not None,
    }.get(name, True)


def _beside(scene: Scene) -> tuple[str, str]:
    assert scene.companion is not None  # asked only where there is one
    return scene.companion

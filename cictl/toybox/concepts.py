"""Concepts that the toybox never saw, and photographs of them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cictl.toybox.world.render import Look, render
from cictl.toybox.world.scene import DEMO_LOOK, Scene

_PLACES: tuple[tuple[str, tuple[str, str] | None], ...] = (
    ("beach", ("ball", "blue")),
    ("forest", None),
    ("brick", ("cone", "yellow")),
    ("room", None),
    ("city", ("star", "red")),
)


def demo_concept() -> list[Scene]:
    """Five scenes with the dotted teapot of the demo: other backgrounds, other companions or none."""
    noun, colour, pattern, accent = DEMO_LOOK
    return [Scene(noun, noun, colour, accent, pattern, place, companion=companion) for place, companion in _PLACES]


def render_photographs(scenes: Sequence[Scene], seed: int) -> list[np.ndarray]:
    """Pictures [64, 64, 3] of one and the same thing: equal colours and pattern, whatever else the scenes say."""
    look = Look.draw(scenes[0], np.random.default_rng([seed, 0]))
    return [render(scene, np.random.default_rng([seed, number]), look)[0] for number, scene in enumerate(scenes, 1)]

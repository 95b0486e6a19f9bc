"""Concepts that the toybox never saw, and photographs of them. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cictl.toybox.world.render import Look, render
from cictl.toybox.world.scene import COLOURS, COMPANION_SHAPES, DEMO_LOOK, SHAPES, Scene, poses_of

PHOTOGRAPHS = 5
# Where photographs are taken; the suite's prompts ask for other places.
_PLACES = ("beach", "forest", "brick", "room", "city", "water")
_COMPANIONED = (0, 2, 4)
_POSED = {1: "floating", 3: "tilted"}

# Chosen among the held-out looks before anything was measured on them.
_OBJECTS = (
    ("cube", "purple", "dotted", "red"), ("ball", "blue", "striped", "yellow"), ("cone", "red", "checkered", "white"),
    ("star", "red", "dotted", "green"), ("heart", "pink", "dotted", "purple"), ("ring", "yellow", "striped", "black"),
    ("teapot", "cyan", "striped", "pink"), ("teapot", "green", "checkered", "red"), ("mug", "black", "checkered", "white"),
    ("mug", "yellow", "dotted", "green"), ("bottle", "white", "striped", "cyan"), ("mushroom", "cyan", "dotted", "pink"),
)  # fmt: skip
_DEVELOPMENT = (
    ("teapot", "white", "dotted", "purple"), ("mug", "pink", "striped", "white"),
    ("star", "yellow", "checkered", "black"), ("bottle", "blue", "striped", "yellow"),
)  # fmt: skip


@dataclass(frozen=True)
class ToyConcept:
    """What some photographs share, and what they show besides.

    Attributes:
        kind: what is shared; all else differs between the photographs.
        scenes: the ground truth of each photograph.
    """

    name: str
    kind: Literal["object", "style", "pose"]
    scenes: tuple[Scene, ...]

    @property
    def look(self) -> Scene:
        """What the shared thing looks like: a scene with it, upright and without a companion."""
        return replace(self.scenes[0], pose="upright", companion=None)

    def photographs(self, seed: int = 0) -> list[np.ndarray]:
        """Pictures [64, 64, 3] of bytes of its scenes."""
        return render_photographs(self.scenes, seed)


def demo_concept() -> ToyConcept:
    """The dotted teapot of ``cictl demo``: other backgrounds, other companions or none."""
    noun, colour, pattern, accent = DEMO_LOOK
    places: tuple[tuple[str, tuple[str, str] | None], ...] = (
        ("beach", ("ball", "blue")), ("forest", None), ("brick", ("cone", "yellow")), ("room", None), ("city", ("star", "red")),
    )  # fmt: skip
    scenes = [Scene(noun, noun, colour, accent, pattern, place, companion=companion) for place, companion in places]
    return ToyConcept("my-teapot", "object", tuple(scenes))


def suite_concepts() -> list[ToyConcept]:
    """Twelve objects, two styles, two poses: what results are measured on, and nothing is ever tuned on."""
    objects = [_object(*look) for look in _OBJECTS]
    return [*objects, _style("sketch"), _style("cartoon"), _pose("upside down"), _pose("lying")]


def development_concepts() -> list[ToyConcept]:
    """Four more objects, for tuning only."""
    return [_object(*look) for look in _DEVELOPMENT]


def failure_concepts() -> list[ToyConcept]:
    """The paper's failure cases (appendix B.2): one constant background, one constant pose, and plain backgrounds."""
    concepts = []
    for case, changed in (
        ("constant-background", {"background": "beach"}),
        ("constant-pose", {"pose": "tilted"}),
        ("plain-backgrounds", {"background": "studio", "companion": None}),
    ):
        for concept in development_concepts()[:2]:
            scenes = tuple(replace(scene, **changed) for scene in concept.scenes)
            concepts.append(ToyConcept(f"{case}-{concept.name}", "object", scenes))
    return concepts


def render_photographs(scenes: Sequence[Scene], seed: int) -> list[np.ndarray]:
    """Pictures [64, 64, 3] of bytes; things of the same colours have the very same shades, whatever else differs."""
    looks: dict[tuple[str, str | None], Look] = {}
    pictures = []
    for number, scene in enumerate(scenes, 1):
        colours = (scene.colour, scene.accent)
        if colours not in looks:
            looks[colours] = Look.draw(scene, np.random.default_rng([seed, 0, len(looks)]))
        pictures.append(render(scene, np.random.default_rng([seed, number]), looks[colours])[0])
    return pictures


def _object(noun: str, colour: str, pattern: str, accent: str) -> ToyConcept:
    name = f"{colour}-{accent}-{pattern}-{noun}"
    rng = _rng(name)
    places = rng.permutation(_PLACES)[:PHOTOGRAPHS]
    shapes = rng.permutation([shape for shape in COMPANION_SHAPES if shape != noun])
    colours = rng.permutation([other for other in COLOURS if other not in (colour, accent)])
    beside = dict(zip(_COMPANIONED, zip(map(str, shapes), map(str, colours), strict=False), strict=False))
    scenes = []
    for index, place in enumerate(places):
        pose = _POSED.get(index, "upright")
        pose = pose if pose in poses_of(noun) else "upright"
        scenes.append(Scene(noun, noun, colour, accent, pattern, str(place), pose=pose, companion=beside.get(index)))
    return ToyConcept(name, "object", tuple(scenes))


def _style(style: str) -> ToyConcept:
    return ToyConcept(f"style-{style}", "style", _various(f"style-{style}", SHAPES, style=style))


def _pose(pose: str) -> ToyConcept:
    name = f"pose-{pose.replace(' ', '-')}"
    return ToyConcept(name, "pose", _various(name, [form for form in SHAPES if pose in poses_of(form)], pose=pose))


def _various(name: str, nouns: Sequence[str], **shared: str) -> tuple[Scene, ...]:
    """Plain things of different form, colour and place."""
    rng = _rng(name)
    things = zip(rng.permutation(nouns), rng.permutation(list(COLOURS)), rng.permutation(_PLACES), strict=False)
    scenes = [Scene(str(n), str(n), str(c), None, "plain", str(p), **shared) for n, c, p in things]  # type: ignore[arg-type]
    return tuple(scenes[:PHOTOGRAPHS])


def _rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))

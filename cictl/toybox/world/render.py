"""A scene drawn: shaded, anti-aliased, in one of three styles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cictl.toybox.world import shapes
from cictl.toybox.world.backgrounds import background, blend, smoothstep
from cictl.toybox.world.scene import COLOURS, Scene

SIZE = 64
_OVERSAMPLED = 2
_R = SIZE * _OVERSAMPLED
_LINE = np.array((0.03, 0.03, 0.03))
_axis = ((np.arange(_R) + 0.5) / _R * 2 - 1).astype(np.float32)
_X, _Y = np.meshgrid(_axis, _axis)
_TURNS = {"upright": 0.0, "tilted": 0.6, "upside down": np.pi, "lying": np.pi / 2, "floating": 0.0}


@dataclass(frozen=True)
class Look:
    """What stays equal between pictures of one and the same thing: its exact colours."""

    colour: np.ndarray
    accent: np.ndarray

    @classmethod
    def draw(cls, scene: Scene, rng: np.random.Generator) -> Look:
        """The look of a thing like the scene's."""
        colour = _jittered(scene.colour, rng)
        return cls(colour, _jittered(scene.accent, rng) if scene.accent else colour)


@dataclass(frozen=True)
class _Thing:
    noun: str
    form: str
    pattern: str
    look: Look
    x: float
    y: float
    size: float
    turn: float


def render(scene: Scene, rng: np.random.Generator, look: Look | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``scene``; place, size, turn, light and shades vary with ``rng``.

    Returns:
        The picture [64, 64, 3] of bytes, and the mask [64, 64] of the thing, True where it is.
    """
    canvas = background(scene.background, _X, _Y, rng)
    if scene.style == "cartoon":
        canvas = np.clip(0.55 * canvas + 0.45, 0, 1)
    light = float(rng.choice((-1, 1)) * rng.uniform(0.4, 1))
    side = float(rng.choice((-1, 1)))
    look = look or Look.draw(scene, rng)
    main = _place_main(scene, look, side, rng)
    if scene.companion:
        canvas, _ = _paint(canvas, _place_companion(scene.companion, side, rng), scene.style, light, False)
    canvas, outline = _paint(canvas, main, scene.style, light, scene.pose == "floating")
    canvas = _as_sketch(canvas, outline) if scene.style == "sketch" else canvas + rng.uniform(-0.02, 0.02)
    small = np.clip(canvas, 0, 1).reshape(SIZE, _OVERSAMPLED, SIZE, _OVERSAMPLED, 3).mean((1, 3))
    mask = outline.reshape(SIZE, _OVERSAMPLED, SIZE, _OVERSAMPLED).mean((1, 3)) < 0.05
    return (small * 255 + 0.5).astype(np.uint8), mask


def _place_main(scene: Scene, look: Look, side: float, rng: np.random.Generator) -> _Thing:
    beside = scene.companion is not None
    size = rng.uniform(0.60, 0.68) if beside else rng.uniform(0.66, 0.80)
    x = -side * rng.uniform(0.18, 0.26) if beside else rng.uniform(-0.12, 0.12)
    y = rng.uniform(-0.06, 0.14)
    turn = _TURNS[scene.pose] + rng.uniform(-0.1, 0.1)
    if scene.pose == "floating":
        y, size = y - 0.22, size * 0.85
    if scene.pose in ("tilted", "lying"):
        turn = turn if rng.random() < 0.5 else -turn
    return _Thing(scene.noun, scene.form, scene.pattern, look, x, y, size, turn)


def _place_companion(companion: tuple[str, str], side: float, rng: np.random.Generator) -> _Thing:
    shape, colour = companion
    look = Look(_jittered(colour, rng), np.zeros(3))
    return _Thing(
        shape, shape, "plain", look, side * rng.uniform(0.69, 0.74), rng.uniform(0.58, 0.70),
        rng.uniform(0.24, 0.27), rng.uniform(-0.2, 0.2),
    )  # fmt: skip


def _paint(canvas: np.ndarray, thing: _Thing, style: str, light: float, floating: bool) -> tuple[np.ndarray, np.ndarray]:
    """``thing`` on ``canvas``, and the signed distance to its outline in units of the picture."""
    cos, sin = np.cos(thing.turn), np.sin(thing.turn)
    u = ((_X - thing.x) * cos + (_Y - thing.y) * sin) / thing.size
    v = (-(_X - thing.x) * sin + (_Y - thing.y) * cos) / thing.size
    outline, faces = shapes.distance(thing.form, u, v)
    if thing.form != thing.noun and (parts := shapes.small_parts(thing.noun, u, v)) is not None:
        if faces is not None:
            faces = np.where(parts < outline, 0.95, faces)
        outline = np.minimum(outline, parts)
    cover = np.clip(0.5 - outline * thing.size * _R / 4, 0, 1)
    paint = blend(np.broadcast_to(thing.look.colour, (_R, _R, 3)), thing.look.accent, _pattern(thing, u, v))
    if style != "cartoon":
        shade, gloss = _shading(outline, faces, u, v, thing.size, light)
        paint = paint * shade[..., None] + gloss[..., None]
        below = 1.05 if floating else 0.85
        shadow = np.hypot(
            (_X - thing.x - 0.1 * thing.size) / (thing.size * 0.95), (_Y - thing.y - below * thing.size) / (thing.size * 0.28)
        )
        canvas = canvas * (1 - np.clip(1 - shadow, 0, 1) * 0.45 * (1 - cover))[..., None]
    canvas = blend(canvas, np.clip(paint, 0, 1), cover)
    edge = np.abs(outline * thing.size)
    if style == "cartoon":
        canvas = blend(canvas, _LINE, smoothstep(0.06 - edge))
    elif style == "photo":
        canvas = blend(canvas, canvas * 0.6, smoothstep(0.025 - edge, 0.03) * 0.7)
    return canvas, outline * thing.size


def _pattern(thing: _Thing, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the accent is, 0 to 1: about a third, never in the middle of stripes and checks, whose main colour is there."""
    if thing.pattern == "striped":
        return smoothstep(-np.cos((u + 0.35 * v) * 2.8 * np.pi) - 0.43, 0.35)
    if thing.pattern == "dotted":
        across, down = u / 0.62, v / 0.62 + 0.5
        across = (across + 0.5 * (np.floor(down) % 2) + 0.5) % 1 - 0.5
        return smoothstep(0.30 - np.hypot(across, down % 1 - 0.5), 0.1)
    if thing.pattern == "checkered":
        return smoothstep(-np.cos(u * 2.3 * np.pi) * np.cos(v * 2.3 * np.pi) - 0.10, 0.20)
    return np.zeros_like(u)


def _shading(
    outline: np.ndarray, faces: np.ndarray | None, u: np.ndarray, v: np.ndarray, size: float, light: float
) -> tuple[np.ndarray, np.ndarray]:
    if faces is not None:
        return faces, np.zeros_like(u)
    depth = np.clip(-outline / 0.55, 0, 1)
    bulge = np.sqrt(1 - (1 - depth) ** 2)  # as if blown up from the outline
    rise_y, rise_x = np.gradient(bulge)
    scale = _R * size / 2 * 0.55
    slope_x, slope_y = -rise_x * scale, -rise_y * scale
    shade = 0.78 + 0.3 * (light * slope_x - 0.7 * slope_y) / np.sqrt(1 + slope_x**2 + slope_y**2)
    gloss = np.clip(1 - np.hypot(u - light * 0.35, v + 0.38) / 0.28, 0, 1) ** 2 * 0.45
    return shade, gloss


def _as_sketch(canvas: np.ndarray, outline: np.ndarray) -> np.ndarray:
    grey = canvas @ np.array((0.30, 0.59, 0.11))
    rise_y, rise_x = np.gradient(grey)
    inside = smoothstep(0.02 - outline)
    lines = np.clip(np.hypot(rise_x, rise_y) * 5 - 0.15, 0, 1) * (0.3 + 0.7 * inside)
    lines = np.maximum(lines, smoothstep(0.04 - np.abs(outline)) * 0.95)
    paper = 0.97 - 0.1 * (1 - grey) - 0.8 * lines
    return np.stack([paper, paper * 0.985, paper * 0.95], -1)


def _jittered(name: str | None, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(COLOURS[name or "black"]) + rng.uniform(-0.03, 0.03, 3), 0.02, 1)

"""The backgrounds, flat and clean, so that a small model can learn them soon."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Canvas = np.ndarray  # [R, R, 3] in [0, 1]


def smoothstep(field: np.ndarray, width: float = 0.02) -> np.ndarray:
    """0 below, 1 above zero, over ``width``: an anti-aliased edge."""
    return np.clip(field / width + 0.5, 0, 1)


def blend(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    """``over`` laid over ``under`` by ``share`` [R, R]."""
    return under * (1 - share[..., None]) + over * share[..., None]


def background(name: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Canvas:
    """The background ``name`` over the plane [-1, 1]^2, y down; horizon, light and places vary."""
    return np.clip(_PAINTERS[name](_Painter(x, y, rng)), 0, 1)


class _Painter:
    """A canvas with the few things that backgrounds are made of."""

    def __init__(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> None:
        self.x, self.y, self.rng = x, y, rng
        self.horizon = rng.uniform(0.0, 0.3)
        self.phase = rng.uniform(0, 2 * np.pi)
        self.wave = 0.05 * np.sin(x * rng.uniform(2, 4) + self.phase)

    def colour(self, r: float, g: float, b: float, jitter: float = 0.03) -> np.ndarray:
        return np.array((r, g, b), np.float32) + self.rng.uniform(-jitter, jitter, 3).astype(np.float32)

    def fill(self, colour: np.ndarray) -> Canvas:
        return np.broadcast_to(colour, (*self.x.shape, 3)).astype(np.float32)

    def ground(self, canvas: Canvas, colour: np.ndarray, lower: float = 0.0, wave: float = 1.0) -> Canvas:
        return blend(canvas, colour, smoothstep(self.y - self.horizon - lower - wave * self.wave, 0.04))

    def disc(self, canvas: Canvas, x: float, y: float, radius: float, colour: np.ndarray, width: float = 0.02) -> Canvas:
        return blend(canvas, colour, smoothstep(radius - np.hypot(self.x - x, self.y - y), width))

    def aside(self, near: float, far: float) -> float:
        return float(self.rng.choice((-1, 1)) * self.rng.uniform(near, far))


def _beach(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.50, 0.78, 0.98))
    canvas = blend(canvas, p.colour(0.10, 0.50, 0.75), smoothstep(p.y - (p.horizon - 0.3)))
    canvas = p.ground(canvas, p.colour(0.97, 0.87, 0.60))
    return p.disc(canvas, p.aside(0.55, 0.8), -0.7, 0.17, np.array((1, 0.95, 0.5)))


def _snow(p: _Painter) -> Canvas:
    canvas = p.ground(p.fill(p.colour(0.66, 0.76, 0.90)), np.array((0.94, 0.96, 1.0)), wave=-1.6)
    for column in range(4):
        for row in range(4):
            x, y = (-0.75 + 0.5 * k + p.rng.uniform(-0.1, 0.1) for k in (column, row))
            canvas = p.disc(canvas, x, y, 0.05, np.ones(3), 0.03)
    return canvas


def _forest(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.25, 0.48, 0.25))
    offset = p.rng.uniform(-0.15, 0.15)
    for trunk in range(5):
        x = -0.9 + 0.45 * trunk + offset + p.rng.uniform(-0.06, 0.06)
        canvas = blend(canvas, p.colour(0.36, 0.22, 0.12, 0.02), smoothstep(p.rng.uniform(0.06, 0.09) - np.abs(p.x - x)))
    return p.ground(canvas, np.array((0.13, 0.30, 0.10)), lower=0.2)


def _night(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.05, 0.06, 0.24, 0.02))
    for column in range(4):
        for row in range(3):
            x = -0.75 + 0.5 * column + p.rng.uniform(-0.12, 0.12)
            canvas = p.disc(canvas, x, -0.8 + 0.45 * row + p.rng.uniform(-0.1, 0.1), 0.035, np.array((1, 1, 0.85)))
    canvas = p.disc(canvas, p.aside(0.55, 0.75), -0.7, 0.17, np.array((0.98, 0.96, 0.80)))
    return p.ground(canvas, np.array((0.10, 0.12, 0.16)), lower=0.3)


def _brick(p: _Painter) -> Canvas:
    height = 0.29
    row = np.floor((p.y + 1) / height)
    along = ((p.x + 1) / (2 * height) + 0.5 * (row % 2) + 0.5 * p.rng.integers(2)) % 1
    across = ((p.y + 1) / height) % 1
    joints = np.maximum(
        smoothstep(0.06 - np.minimum(along, 1 - along), 0.05), smoothstep(0.12 - np.minimum(across, 1 - across), 0.1)
    )
    return blend(p.fill(p.colour(0.68, 0.30, 0.22)), np.array((0.85, 0.80, 0.75)), joints)


def _meadow(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.60, 0.83, 1.0))
    cloud = p.rng.uniform(-0.6, 0.6)
    for shift, radius in ((-0.28, 0.16), (0.0, 0.22), (0.28, 0.16)):
        canvas = p.disc(canvas, cloud + shift, -0.68, radius, np.ones(3))
    return p.ground(canvas, p.colour(0.35, 0.75, 0.22))


def _water(p: _Painter) -> Canvas:
    crests = np.sin(p.y * 13 + 1.1 * np.sin(p.x * 6 + p.phase) + p.phase) - 0.35
    return blend(p.fill(p.colour(0.12, 0.42, 0.68)), np.array((0.35, 0.68, 0.88)), smoothstep(crests, 0.5))


def _room(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.93, 0.86, 0.72, 0.04))
    dx, dy = np.abs(p.x - p.aside(0.55, 0.65)), np.abs(p.y + 0.6)
    canvas = blend(canvas, np.array((0.98, 0.98, 0.96)), smoothstep(np.minimum(0.27 - dx, 0.27 - dy)))
    panes = smoothstep(np.minimum(0.21 - dx, 0.21 - dy)) * smoothstep(np.minimum(dx, dy) - 0.03)
    canvas = blend(canvas, np.array((0.50, 0.80, 0.98)), panes)
    gaps = smoothstep(0.08 - np.abs(((p.y - p.horizon) / 0.24) % 1 - 0.5), 0.06)
    floor = p.colour(0.60, 0.38, 0.22) * (1 - 0.25 * gaps[..., None])
    return blend(canvas, floor, smoothstep(p.y - p.horizon))


def _desert(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(1.0, 0.80, 0.58))
    canvas = p.disc(canvas, p.aside(0.5, 0.75), -0.65, 0.18, np.array((1, 0.97, 0.80)))
    for dune in range(2):
        crest = p.horizon - 0.2 + 0.4 * dune + 0.1 * np.sin(p.x * p.rng.uniform(2, 3.5) + p.rng.uniform(0, 6))
        canvas = blend(canvas, p.colour(0.90, 0.60, 0.30, 0.02) * (1 - 0.14 * dune), smoothstep(p.y - crest))
    return canvas


def _city(p: _Painter) -> Canvas:
    canvas = p.fill(p.colour(0.75, 0.80, 0.86))
    left, house = -1.0 - p.rng.uniform(0, 0.15), int(p.rng.integers(2))
    while left < 1:
        top, width = float(p.rng.choice((-0.85, -0.55))), 0.5
        wall = p.colour(0.40, 0.42, 0.52, 0.02) if house % 2 else p.colour(0.52, 0.45, 0.48, 0.02)
        across, down = ((p.x - left) / 0.25) % 1, ((p.y - top) / 0.27) % 1
        windows = smoothstep(np.minimum(0.25 - np.abs(across - 0.5), 0.25 - np.abs(down - 0.5)), 0.12)
        face = blend(p.fill(wall), np.array((0.97, 0.92, 0.60)), windows)
        canvas = blend(canvas, face, smoothstep(np.minimum(np.minimum(p.x - left, left + width - p.x), p.y - top)))
        left, house = left + width, house + 1
    canvas = blend(canvas, np.array((0.30, 0.30, 0.33)), smoothstep(p.y - p.horizon - 0.1))
    dashes = smoothstep(0.035 - np.abs(p.y - p.horizon - 0.5)) * smoothstep(0.3 - np.abs((p.x * 2 + 0.5) % 1 - 0.5), 0.06)
    return blend(canvas, np.array((0.95, 0.95, 0.90)), dashes)


def _studio(p: _Painter) -> Canvas:
    return p.fill(p.colour(0.80, 0.80, 0.78) * (1 + 0.06 * p.y[..., None]))


_PAINTERS: dict[str, Callable[[_Painter], Canvas]] = {
    "beach": _beach, "snow": _snow, "forest": _forest, "night": _night, "brick": _brick,
    "meadow": _meadow, "water": _water, "room": _room, "desert": _desert, "city": _city, "studio": _studio,
}  # fmt: skip

"""Signed distances of the shapes, in a frame where each fits into [-1, 1]; y points down, inside is negative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Field = np.ndarray


def distance(form: str, x: Field, y: Field) -> tuple[Field, Field | None]:
    """Distance to ``form`` at each point, and the shading of its faces where they are flat (else None)."""
    return _FORMS[form](x, y)


def small_parts(noun: str, x: Field, y: Field) -> Field | None:
    """What "a cube-shaped teapot" keeps of the teapot: spout, handle and knob, neck, stem; None if nothing."""
    if noun == "teapot":
        spout = polygon(x, y, [(0.5, 0.4), (0.6, 0.0), (0.92, -0.4), (1.04, -0.3), (0.78, 0.35)]) - 0.02
        handle = np.maximum(np.abs(np.hypot(x + 0.72, y - 0.08) - 0.26) - 0.08, x + 0.6)
        knob = np.hypot(x, y + 0.78) - 0.14
        return np.minimum(np.minimum(spout, handle), knob)
    if noun == "mug":
        return np.maximum(np.abs(np.hypot(x - 0.6, y) - 0.32) - 0.09, -(x - 0.5))
    if noun == "bottle":
        return rectangle(x, y + 0.82, 0.15, 0.26, 0.04)
    if noun == "mushroom":
        return rectangle(x, y - 0.85, 0.22, 0.24, 0.08)
    return None


def circle(x: Field, y: Field, radius: float) -> Field:
    return np.hypot(x, y) - radius


def rectangle(x: Field, y: Field, half_width: float, half_height: float, rounding: float = 0.0) -> Field:
    dx, dy = np.abs(x) - half_width + rounding, np.abs(y) - half_height + rounding
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - rounding


def polygon(x: Field, y: Field, corners: Sequence[tuple[float, float]]) -> Field:
    nearest = np.full(x.shape, 1e9, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, [corners[-1], *corners[:-1]], strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        inside ^= ((ay > y) != (by > y)) & (x < ex * (y - ay) / (ey + 1e-9) + ax)
    return np.sqrt(nearest) * np.where(inside, -1, 1)


def _cube(x: Field, y: Field) -> tuple[Field, Field | None]:
    a, dx, dy = 0.62, 0.34, -0.30
    u, v = x + 0.15, y - 0.13
    front = rectangle(u, v, a, a)
    top = polygon(u, v, [(-a, -a), (-a + dx, -a + dy), (a + dx, -a + dy), (a, -a)])
    side = polygon(u, v, [(a, -a), (a + dx, -a + dy), (a + dx, a + dy), (a, a)])
    shade = np.where(front < 0, 0.88, np.where(top < side, 1.12, 0.6))
    return np.minimum(np.minimum(front, top), side), shade


def _ball(x: Field, y: Field) -> tuple[Field, Field | None]:
    return circle(x, y, 0.82), None


def _cone(x: Field, y: Field) -> tuple[Field, Field | None]:
    base = (np.hypot(x / 0.68, (y - 0.6) / 0.22) - 1) * 0.22
    return np.minimum(polygon(x, y, [(0, -0.95), (0.68, 0.6), (-0.68, 0.6)]), base), 0.88 - 0.38 * x


def _star(x: Field, y: Field) -> tuple[Field, Field | None]:
    radii = [0.95 if point % 2 == 0 else 0.42 for point in range(10)]
    corners = [(r * np.sin(i * np.pi / 5), -r * np.cos(i * np.pi / 5)) for i, r in enumerate(radii)]
    return polygon(x, y, corners) - 0.03, None


def _heart(x: Field, y: Field) -> tuple[Field, Field | None]:
    u, v = np.abs(x) / 0.95 * 0.62, (0.62 - y) * 0.62  # Quilez's heart, upside up
    lobe = np.hypot(u - 0.25, v - 0.75) - np.sqrt(2) / 4
    fold = 0.5 * np.maximum(u + v, 0)
    point = np.sqrt(np.minimum(u**2 + (v - 1) ** 2, (u - fold) ** 2 + (v - fold) ** 2)) * np.sign(u - v)
    return np.where(u + v > 1, lobe, point) / 0.62, None


def _ring(x: Field, y: Field) -> tuple[Field, Field | None]:
    return np.abs(np.hypot(x, y) - 0.58) - 0.27, None


def _teapot(x: Field, y: Field) -> tuple[Field, Field | None]:
    body = (np.hypot(x / 0.62, (y - 0.12) / 0.54) - 1) * 0.54
    knob = circle(x, y + 0.5, 0.13)
    handle = np.maximum(np.abs(np.hypot(x + 0.62, y - 0.08) - 0.28) - 0.08, x + 0.45)
    spout = polygon(x, y, [(0.4, 0.38), (0.5, 0.0), (0.85, -0.38), (1.0, -0.28), (0.7, 0.32)]) - 0.02
    return np.minimum(np.minimum(body, knob), np.minimum(handle, spout)), None


def _mug(x: Field, y: Field) -> tuple[Field, Field | None]:
    handle = np.maximum(np.abs(np.hypot(x - 0.42, y) - 0.34) - 0.09, -(x - 0.3))
    return np.minimum(rectangle(x + 0.15, y, 0.54, 0.68, 0.08), handle), 0.98 - 0.5 * np.abs(x + 0.25)


def _bottle(x: Field, y: Field) -> tuple[Field, Field | None]:
    neck = rectangle(x, y + 0.55, 0.17, 0.38, 0.04)
    shoulder = polygon(x, y, [(-0.17, -0.5), (0.17, -0.5), (0.42, -0.1), (-0.42, -0.1)])
    return np.minimum(rectangle(x, y - 0.3, 0.44, 0.62, 0.15), np.minimum(neck, shoulder)), 0.98 - 0.65 * np.abs(x + 0.1)


def _mushroom(x: Field, y: Field) -> tuple[Field, Field | None]:
    cap = np.maximum((np.hypot(x / 0.9, (y - 0.05) / 0.82) - 1) * 0.82, y - 0.1)
    return np.minimum(cap, rectangle(x, y - 0.45, 0.27, 0.42, 0.12)), None


_FORMS = {
    "cube": _cube, "ball": _ball, "cone": _cone, "star": _star, "heart": _heart,
    "ring": _ring, "teapot": _teapot, "mug": _mug, "bottle": _bottle, "mushroom": _mushroom,
}  # fmt: skip

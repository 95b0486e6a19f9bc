"""The history of a loss in little room: bounded to keep, and drawn as one line of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


class History:
    """A whole run's values in bounded memory: when it is full, neighbours are averaged in pairs."""

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._values: list[float] = []
        self._stride = 1
        self._sum = 0.0
        self._count = 0

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: float) -> None:
        """Adds a value; one that is not finite is left out, since it has no height to draw."""
        if not math.isfinite(value):
            return
        self._sum += value
        self._count += 1
        if self._count < self._stride:
            return
        self._values.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._values) >= self._capacity:
            self._values = _means(self._values, len(self._values) // 2)
            self._stride *= 2

    def means(self, width: int) -> list[float]:
        """At most ``width`` means of equally long stretches, oldest first."""
        return _means(self._values, width) if len(self._values) > width else list(self._values)


def sparkline(values: Sequence[float], sparks: str) -> str:
    """One character per value, from the lowest of ``sparks`` to the highest."""
    if not values:
        return ""
    low, high = min(values), max(values)
    spread = high - low
    if spread <= 0:
        return sparks[0] * len(values)
    top = len(sparks) - 1
    return "".join(sparks[round((value - low) / spread * top)] for value in values)


def _means(values: Sequence[float], width: int) -> list[float]:
    if width <= 0:
        return []
    count = len(values)
    edges = [count * index // width for index in range(width + 1)]
    return [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]

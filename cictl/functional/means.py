"""Means of figures, and the best by one. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def harmonic_mean(one: float, other: float) -> float:
    """2 / (1 / a + 1 / b): high only where both are; 0 where one is not above 0."""
    return 2 * one * other / (one + other) if one > 0 and other > 0 else 0.0


def last_and_best(results: Sequence[T], quality: Callable[[T], float]) -> list[tuple[str, T]]:
    """What a training ended with and, where one that it kept along the way is better, that one too, each with what it is.

    Args:
        results: the last first; of equal ones it is the best, and of others the one that stands first.
        quality: of a result, as the harmonic mean of how well the concept is kept and how well prompts are obeyed.

    Returns:
        "last and best", or "last" and then "best".
    """
    last, best = results[0], max(results, key=quality)
    return [("last and best", last)] if best is last else [("last", last), ("best", best)]

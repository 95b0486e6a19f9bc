"""Means and spreads of figures. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A mean and its standard deviation (with n - 1); None where there are too few values for it.

    Attributes:
        count: of the values that went into it.
    """

    mean: float | None
    std: float | None
    count: int


def summarize(values: Sequence[float]) -> Score:
    """The mean of ``values`` and their standard deviation."""
    count = len(values)
    if not count:
        return Score(None, None, 0)
    mean = math.fsum(values) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)) if count > 1 else None
    return Score(mean, spread, count)


def over_prompts(scores: Sequence[Score]) -> Score:
    """The mean of the prompts' means, so that every prompt counts the same, and the standard deviation of those means."""
    return summarize([score.mean for score in scores if score.mean is not None])

"""When a training has converged: DVAR's rule (Voronov et al. 2023, arXiv 2302.04841). Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import pvariance


def variance_ratio(losses: Sequence[float], window: int) -> float:
    """Var(the last ``window`` losses) / Var(all losses), by which DVAR stops: under 0.15, with a window of 310.

    Args:
        losses: of one fixed batch (its photographs, prompts, noise and timesteps never change), in the order of training.
        window: how many of them are the last ones, at least 2.

    Returns:
        1 as long as there are no more than ``window`` losses, and where they are all equal.
    """
    overall = pvariance(losses) if len(losses) > window else 0.0
    return pvariance(losses[-window:]) / overall if overall else 1.0

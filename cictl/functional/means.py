"""Means of figures. Imports no torch."""

from __future__ import annotations


def harmonic_mean(one: float, other: float) -> float:
    """2 / (1 / a + 1 / b): high only where both are; 0 where one is not above 0."""
    return 2 * one * other / (one + other) if one > 0 and other > 0 else 0.0

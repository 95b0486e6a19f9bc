"""DVAR's ratio of variances against naive sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cictl.functional.stopping import variance_ratio

CURVE = [1 / (1 + step) + 0.01 * math.sin(step) for step in range(60)]


def naive(losses: list[float], window: int) -> float:
    def variance(values: list[float]) -> float:
        mean = sum(values) / len(values)
        return sum((value - mean) ** 2 for value in values) / len(values)

    return variance(losses[-window:]) / variance(losses)


@pytest.mark.parametrize("window", [2, 7, 31])
def test_the_ratio_is_that_of_naive_sums_and_of_numpy(window: int):
    for count in range(window + 1, len(CURVE) + 1):
        ratio = variance_ratio(CURVE[:count], window)
        assert ratio == pytest.approx(naive(CURVE[:count], window))
        assert ratio == pytest.approx(np.var(CURVE[:count][-window:]) / np.var(CURVE[:count]))


def test_nothing_is_said_before_the_window_is_full():
    assert [variance_ratio(CURVE[:count], 10) for count in range(11)] == [1.0] * 11
    assert variance_ratio(CURVE[:11], 10) != 1.0


def test_the_unit_and_the_level_of_the_loss_do_not_matter():
    assert variance_ratio([7 + 100 * loss for loss in CURVE], 12) == pytest.approx(variance_ratio(CURVE, 12))


def test_a_curve_that_has_become_flat_has_a_small_ratio_and_one_that_falls_evenly_has_not():
    flat = [*np.linspace(1, 0, 20), *[0.0] * 20]
    assert variance_ratio(flat, 10) == 0
    assert variance_ratio([float(number) for number in np.linspace(1, 0, 40)], 30) > 0.5


def test_losses_that_are_all_equal_or_not_a_number_stop_nothing():
    assert variance_ratio([0.5] * 9, 3) == 1
    assert not variance_ratio([*CURVE, math.nan], 3) < 0.15

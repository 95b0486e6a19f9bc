"""The harmonic mean, and the best of a training by it."""

from __future__ import annotations

import pytest

from cictl.functional.means import harmonic_mean, last_and_best


@pytest.mark.parametrize(("one", "other", "expected"), [(0.5, 0.5, 0.5), (0.25, 1, 0.4), (0, 1, 0), (-0.5, 0.9, 0), (0.2, 0, 0)])
def test_the_harmonic_mean_is_high_only_where_both_are(one: float, other: float, expected: float):
    assert harmonic_mean(one, other) == pytest.approx(expected) and harmonic_mean(other, one) == harmonic_mean(one, other)


@pytest.mark.parametrize(("qualities", "expected"), [
    ({"last": 0.3}, [("last and best", "last")]),
    ({"last": 0.3, "early": 0.2, "late": 0.1}, [("last and best", "last")]),
    ({"last": 0.3, "early": 0.4, "late": 0.5}, [("last", "last"), ("best", "late")]),
    ({"last": 0.3, "early": 0.3, "late": 0.3}, [("last and best", "last")]),
    ({"last": 0.3, "early": 0.5, "late": 0.5}, [("last", "last"), ("best", "early")]),
])  # fmt: skip
def test_the_last_is_the_best_unless_another_is_better(qualities: dict[str, float], expected: list[tuple[str, str]]):
    assert last_and_best(list(qualities), qualities.__getitem__) == expected

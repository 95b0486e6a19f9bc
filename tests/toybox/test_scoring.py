"""Scores against readings made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from cictl.toybox import scoring
from cictl.toybox.concepts import demo_concept, suite_concepts
from cictl.toybox.scoring import (
    alignment,
    estimate,
    fidelity,
    kept_whole,
    leakage,
    own_background,
    own_companion,
    paired,
    shows_object,
    unasked_companion,
)
from cictl.toybox.tasks import tasks
from cictl.toybox.world.truth import ATTRIBUTES, truth

CONCEPT = demo_concept()
TASKS = {task.name: task for task in tasks(CONCEPT)}


def perfect(name: str) -> dict[str, str]:
    """What a perfect judge reads in a perfect picture; in sketches it guesses the colours."""
    return {key: value if value is not None else ATTRIBUTES[key][0] for key, value in truth(TASKS[name].scene).items()}


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_picture_has_full_marks(name: str) -> None:
    reading = {**perfect(name), "background": TASKS[name].asked.get("background", "studio")}
    task = TASKS[name]
    assert fidelity(task, reading) == alignment(task, reading) == kept_whole(task, reading) == 1
    assert leakage(CONCEPT, task, reading) == 0


@pytest.mark.parametrize(
    ("name", "changed", "kept", "asked"),
    [
        ("plain", {"colour": "red"}, 4 / 5, 1),
        ("snow", {"background": "beach"}, 1, 0),
        ("colour", {"colour": "orange"}, 1, 0),  # the concept's own colour is not what was asked for
        ("first shape", {"form": "teapot"}, 1, 0),
        ("second shape", {"form": "teapot"}, 1, 1 / 2),
        ("sketch", {"colour": "red", "accent": "red"}, 1, 1),  # nobody can tell
        ("companion", {"companion colour": "none"}, 1, 1 / 2),
    ],
)
def test_what_is_wrong_costs_its_share(name: str, changed: dict[str, str], kept: float, asked: float) -> None:
    reading = {**perfect(name), **changed}
    assert fidelity(TASKS[name], reading) == pytest.approx(kept)
    assert alignment(TASKS[name], reading) == pytest.approx(asked)


def test_backgrounds_and_companions_of_the_photographs_leak_unless_they_are_asked_for() -> None:
    plain, companion = perfect("plain"), perfect("companion")
    assert leakage(CONCEPT, TASKS["plain"], {**plain, "background": "beach"}) == 1
    assert leakage(CONCEPT, TASKS["plain"], {**plain, "background": "night"}) == 0
    own = {"companion shape": "ball", "companion colour": "blue"}
    assert leakage(CONCEPT, TASKS["snow"], {**perfect("snow"), **own}) == 1
    assert leakage(CONCEPT, TASKS["snow"], {**perfect("snow"), **own, "companion colour": "green"}) == 0
    assert leakage(CONCEPT, TASKS["companion"], {**companion, "background": "studio"}) == 0


def test_what_an_auxiliary_token_holds() -> None:
    beach = CONCEPT.scenes[0]
    reading = {key: value or "none" for key, value in truth(beach).items()}
    assert own_background(beach, reading) == own_companion(beach, reading) == shows_object(beach, reading) == 1
    assert own_background(beach, {**reading, "background": "snow"}) == 0
    assert own_companion(beach, {**reading, "companion shape": "cube"}) == 0
    assert own_companion(CONCEPT.scenes[1], reading) is None
    assert shows_object(beach, {**reading, "colour": "blue"}) == 0


def test_the_mean_is_of_concepts_and_the_interval_holds_it() -> None:
    found = estimate([[1, 1, 1, 1], [0, 0], [1, 0]])
    assert found.mean == pytest.approx(0.5)
    assert found.low < found.mean < found.high
    assert estimate([[1, 1], [1, 1]]) == estimate([[1], [1]])
    assert estimate([[1, 1], [1, 1]]).low == 1
    assert np.isnan(estimate([]).mean)


def test_single_values_are_resampled_as_a_loop_over_concepts_resamples_them() -> None:
    values, rng = [0.1, 0.5, 0.2, 0.9, 0.4], np.random.default_rng(3)
    naive = [np.mean([rng.choice([values[index]]) for index in rng.integers(0, 5, 5)]) for _ in range(2000)]
    found = estimate([[value] for value in values], seed=3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(naive, (0.025, 0.975))))


def test_intervals_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 draws with a known mean, about 95% of the intervals hold it; the bootstrap of 16 concepts is a little narrow."""
    monkeypatch.setattr(scoring, "_RESAMPLINGS", 300)
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        rates = rng.beta(4, 4, 16)
        found = estimate([rng.random(30) < rate for rate in rates])
        held += found.low <= 0.5 <= found.high
    assert 0.88 < held / 200 <= 1


def test_pairs_are_differences_picture_by_picture() -> None:
    assert paired([[1.0, 0.0], [1.0]], [[0.0, 0.0], [1.0]]) == [[1.0, 0.0], [0.0]]
    with pytest.raises(ValueError, match="shorter"):
        paired([[1.0, 0.0]], [[1.0]])


def test_something_beside_the_thing_counts_unless_it_was_asked_for():
    concept = suite_concepts()[0]
    for task in tasks(concept):
        alone = {"companion shape": "none"}
        assert unasked_companion(task, alone) == 0
        assert unasked_companion(task, {"companion shape": "star"}) == (task.name != "companion")

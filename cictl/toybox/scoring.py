"""Fidelity, alignment and leakage, from what the judge read. Pure functions; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cictl.functional.means import harmonic_mean
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.tasks import Task
from cictl.toybox.world.scene import Scene
from cictl.toybox.world.truth import NONE

_RESAMPLINGS = 2000
_LOOK = ("colour", "accent", "pattern")

Reading = Mapping[str, str]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f}-{self.high:.2f})"


def fidelity(task: Task, reading: Reading) -> float:
    """The share of the concept's attributes that the prompt does not change and the picture keeps."""
    return _share(task.kept, reading)


def look(task: Task, reading: Reading) -> float:
    """An object's fidelity over colours and pattern alone: what the noun, which some methods are told, does not say."""
    return _share({name: value for name, value in task.kept.items() if name in _LOOK}, reading)


def alignment(task: Task, reading: Reading) -> float:
    """The share of the attributes that the prompt asks for and the picture has."""
    return _share(task.asked, reading)


def leakage(concept: ToyConcept, task: Task, reading: Reading) -> float:
    """1 if the picture has a background or a companion of the photographs that the prompt does not ask for, else 0."""
    places = {scene.background for scene in concept.scenes} - {task.asked.get("background")}
    companions = {scene.companion for scene in concept.scenes if scene.companion}
    beside = (reading["companion shape"], reading["companion colour"])
    asked = (task.asked.get("companion shape"), task.asked.get("companion colour"))
    return float(reading["background"] in places or (beside in companions and beside != asked))


def unasked_companion(task: Task, reading: Reading) -> float:
    """1 if the picture has something beside the thing though the prompt asks for nothing there, else 0.

    :func:`leakage` counts the photographs' own companions alone, which differ: what comes along of all of them, that there
    is something at all, it does not see.
    """
    return float("companion shape" not in task.asked and reading["companion shape"] != NONE)


def kept_whole(task: Task, reading: Reading) -> float:
    """1 if form, colours and pattern are all as the task's scene has them: "a cube with the concept's colours and pattern"."""
    names = ("form", "colour", "accent", "pattern")
    wanted = {**task.kept, **task.asked}
    return float(all(reading[name] == wanted[name] for name in names if name in wanted))


def own_background(scene: Scene, reading: Reading) -> float:
    """1 if a picture of A_i* shows the background of its photograph, else 0."""
    return float(reading["background"] == scene.background)


def own_companion(scene: Scene, reading: Reading) -> float | None:
    """1 if a picture of A_i* shows the companion of its photograph, which is None if there is none."""
    if scene.companion is None:
        return None
    return float((reading["companion shape"], reading["companion colour"]) == scene.companion)


def shows_object(scene: Scene, reading: Reading) -> float:
    """1 if a picture of A_i* shows the thing itself, form and main colour, else 0."""
    return float(reading["form"] == scene.form and reading["colour"] == scene.colour)


def estimate(groups: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """The mean of concepts' means, and its bootstrap interval over concepts and, within them, over pictures.

    Args:
        groups: the values of each concept's pictures.
    """
    arrays = [np.asarray(group, float)[:, None] for group in groups if len(group)]
    return _bootstrap(arrays, lambda means: float(means[0]), seed)


def harmonic_estimate(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """The harmonic mean of two figures' means over the same pictures, and its interval as of :func:`estimate`."""
    arrays = [np.stack([np.asarray(a, float), np.asarray(b, float)], axis=1) for a, b in zip(one, other, strict=True) if len(a)]
    return _bootstrap(arrays, lambda means: harmonic_mean(*means), seed)


def _bootstrap(arrays: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], seed: int) -> Estimate:
    """``statistic`` of the mean of concepts' means; an array is [pictures, figures] of one concept."""
    if not arrays:
        return Estimate(float("nan"), float("nan"), float("nan"))
    found = [statistic(means) for means in _resampled(arrays, np.random.default_rng(seed))]
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(statistic(np.mean([array.mean(axis=0) for array in arrays], axis=0)), float(low), float(high))


def _resampled(arrays: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The mean of concepts' means in each resampling, [resamplings, figures]."""
    count = len(arrays)
    if all(len(array) == 1 for array in arrays):  # the same without a loop, since there is nothing to draw within a concept
        return np.concatenate(arrays)[rng.integers(0, count, (_RESAMPLINGS, count))].mean(axis=1)
    found = []
    for _ in range(_RESAMPLINGS):
        chosen = rng.integers(0, count, count)
        means = [rng.choice(arrays[index], len(arrays[index])).mean(axis=0) for index in chosen]
        found.append(np.mean(means, axis=0))
    return np.stack(found)


def paired(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> list[list[float]]:
    """The differences picture by picture, for an estimate of how two runs with equal noise differ."""
    return [[a - b for a, b in zip(own, other, strict=True)] for own, other in zip(ours, theirs, strict=True)]


def of_each(score: Callable[[Task, Reading], float], tasks: Sequence[Task], readings: Sequence[Sequence[Reading]]) -> list[float]:
    """``score`` of every picture of every task; ``readings`` holds those of a task's pictures."""
    return [score(task, reading) for task, own in zip(tasks, readings, strict=True) for reading in own]


def _share(wanted: Mapping[str, str], reading: Reading) -> float:
    return float(np.mean([reading[name] == value for name, value in wanted.items()]))

"""Ground truth, where there is one: concepts of the toybox's world, which its judge can read in pictures of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cictl.toybox.concepts import ToyConcept, demo_concept, development_concepts, failure_concepts, suite_concepts
from cictl.toybox.scoring import alignment, fidelity, leakage
from cictl.toybox.tasks import Task, tasks

SIDE = 64  # of the pictures that the judge reads, in pixels

Reading = Mapping[str, str]


@dataclass(frozen=True)
class Judgement:
    """What the judge says of a picture of a task: the shares that :mod:`cictl.toybox.scoring` defines."""

    fidelity: float
    alignment: float
    leakage: float


def recognise(photographs: Iterable[np.ndarray]) -> ToyConcept | None:
    """The concept of the toybox's demo or suite whose photographs these are, pixel for pixel and all of them.

    Args:
        photographs: arrays [H, W, 3] of bytes, in any order.
    """
    found = set()
    for pixels in photographs:
        if pixels.shape != (SIDE, SIDE, 3):
            return None
        found.add(pixels.tobytes())
    for concept in (demo_concept(), *suite_concepts(), *development_concepts(), *failure_concepts()):
        own = concept.photographs()
        if own[0].tobytes() in found and {pixels.tobytes() for pixels in own} == found:
            return concept
    return None


def tasks_by_prompt(concept: ToyConcept) -> dict[str, Task]:
    """What the suite asks of a concept, by its prompt with S*."""
    return {task.prompt: task for task in tasks(concept)}


def judge_pictures(toybox: Path, sets: Iterable[Sequence[np.ndarray]]) -> list[list[dict[str, str]]]:
    """What the judge that ships in the toybox's folder, loaded once, reads in sets of pictures [64, 64, 3] of bytes, each."""
    from cictl.toybox.judge import load_judge, read

    judge = load_judge(toybox)
    return [read(judge, np.stack(pictures)) for pictures in sets]


def judgement(concept: ToyConcept, task: Task, reading: Reading) -> Judgement:
    """A reading against what the task asks for, keeps, and must not show."""
    return Judgement(fidelity(task, reading), alignment(task, reading), leakage(concept, task, reading))

"""From readings to tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from benchmarks.toybox_suite.arms import CHANCE, WORDS, Arm
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.scoring import (
    Estimate,
    Reading,
    alignment,
    estimate,
    fidelity,
    kept_whole,
    leakage,
    of_each,
    own_background,
    own_companion,
    paired,
    shows_object,
)
from cictl.toybox.tasks import Task, tasks

Readings = list[list[dict[str, str]]]  # of a concept: task, picture
SHAPES = ("first shape", "second shape")


@dataclass(frozen=True)
class Results:
    """Everything that the jobs wrote.

    Attributes:
        arms: readings of each arm's pictures of each concept, by name.
        auxiliary: readings of the pictures of A_i*, by training and concept: photograph, picture.
        ceiling: readings of real renders of what the prompts ask for, by concept.
        seconds: of each training and stage, by concept.
        steps: that each training and stage has, by concept.
    """

    concepts: Sequence[ToyConcept]
    arms: Mapping[str, Mapping[str, Readings]]
    auxiliary: Mapping[str, Mapping[str, Readings]]
    ceiling: Mapping[str, Readings]
    seconds: Mapping[str, Mapping[str, Mapping[str, float]]]
    steps: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)

    def scores(self, score: Callable[[Task, Reading], float], readings: Mapping[str, Readings]) -> list[list[float]]:
        """``score`` of every picture, by concept."""
        return [of_each(score, tasks(concept), readings[concept.name]) for concept in self.concepts]

    def leaks(self, arm: str) -> list[list[float]]:
        """Leakage of every picture of an arm, by concept."""

        def of(concept: ToyConcept) -> list[float]:
            return of_each(lambda task, reading: leakage(concept, task, reading), tasks(concept), self.arms[arm][concept.name])

        return [of(concept) for concept in self.concepts]

    def leaks_above_base(self, arm: str) -> list[list[float]]:
        """The same less the base's, picture by picture with equal noise."""
        return paired(self.leaks(arm), self.leaks(WORDS.name))


def main_table(results: Results, arms: Sequence[Arm]) -> str:
    """Fidelity, alignment and leakage of each arm."""
    lines = [
        "| | fidelity | alignment | leakage | leakage above the base's |",
        "|---|---|---|---|---|",
        f"| real renders of what is asked for: the judge's ceiling | {estimate(results.scores(fidelity, results.ceiling))} "
        f"| {estimate(results.scores(alignment, results.ceiling))} | | |",
    ]
    for arm in arms:
        readings = results.arms[arm.name]
        above = "" if arm in (WORDS, CHANCE) else str(estimate(results.leaks_above_base(arm.name)))
        lines.append(
            f"| {arm.about} | {estimate(results.scores(fidelity, readings))} | {estimate(results.scores(alignment, readings))} "
            f"| {estimate(results.leaks(arm.name))} | {above} |"
        )
    return "\n".join(lines)


def steps_table(results: Results, arms: Sequence[Arm]) -> str:
    """How many steps each arm was trained for: the mean over the concepts, and from the fewest to the most where they differ."""
    trained = [arm for arm in arms if arm.training and any(results.steps.get(arm.training.name, {}).values())]
    if not trained:
        return ""
    stages = list(dict.fromkeys(stage for arm in trained for stage in steps_done(results, arm)))
    lines = [f"| steps done | {' | '.join(f'cictl {stage}' for stage in stages)} |", f"|---|{'---|' * len(stages)}"]
    for arm in trained:
        done = steps_done(results, arm)
        lines.append(f"| {arm.about} | {' | '.join(_spread(done.get(stage, [])) for stage in stages)} |")
    return "\n".join(lines)


def steps_done(results: Results, arm: Arm) -> dict[str, list[int]]:
    """The steps of each stage that an arm is drawn from, a number for each concept."""
    done: dict[str, list[int]] = {}
    for of_concept in results.steps.get(arm.training.name, {}).values() if arm.training else ():
        for stage, steps in of_concept.items():
            if stage == "invert" or arm.drawn != "invert":
                done.setdefault(stage, []).append(steps)
    return done


def _spread(steps: Sequence[int]) -> str:
    if not steps:
        return ""
    return f"{mean(steps):.0f}" + (f" ({min(steps)} to {max(steps)})" if min(steps) < max(steps) else "")


def prompt_table(results: Results, arms: Sequence[Arm]) -> str:
    """Fidelity and alignment of the objects, prompt by prompt."""
    objects = [concept for concept in results.concepts if concept.kind == "object"]
    if not objects:
        return ""
    names = [task.name for task in tasks(objects[0])]
    lines = [f"| fidelity / alignment | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for about, readings in [("the judge's ceiling", results.ceiling), *((arm.about, results.arms[arm.name]) for arm in arms)]:
        cells = []
        for index in range(len(names)):
            own = [(tasks(concept)[index], readings[concept.name][index]) for concept in objects]
            kept = estimate([[fidelity(task, one) for one in found] for task, found in own]).mean
            asked = estimate([[alignment(task, one) for one in found] for task, found in own]).mean
            cells.append(f"{kept:.2f} / {asked:.2f}")
        lines.append(f"| {about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kind_table(results: Results, arms: Sequence[Arm]) -> str:
    """Fidelity and alignment by what the concepts share."""
    kinds = list(dict.fromkeys(concept.kind for concept in results.concepts))
    lines = [f"| fidelity / alignment | {' | '.join(f'{kind}s' for kind in kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for arm in arms:
        cells = []
        for kind in kinds:
            part = replace(results, concepts=[one for one in results.concepts if one.kind == kind])
            readings = results.arms[arm.name]
            kept, asked = estimate(part.scores(fidelity, readings)), estimate(part.scores(alignment, readings))
            cells.append(f"{kept.mean:.2f} / {asked.mean:.2f}")
        lines.append(f"| {arm.about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def concept_table(results: Results, arms: Sequence[Arm]) -> str:
    """Fidelity, alignment and leakage above the base's, concept by concept."""
    trained = [arm for arm in arms if arm.training]
    lines = [f"| fidelity / alignment / leakage | {' | '.join(arm.about for arm in trained)} |", f"|---|{'---|' * len(trained)}"]
    for concept in results.concepts:
        own, cells = replace(results, concepts=[concept]), []
        for arm in trained:
            readings = results.arms[arm.name]
            scores = (own.scores(fidelity, readings), own.scores(alignment, readings), own.leaks_above_base(arm.name))
            cells.append(" / ".join(f"{estimate(one).mean:.2f}" for one in scores))
        lines.append(f"| {concept.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cubes(results: Results, readings: Mapping[str, Readings]) -> Estimate:
    """How often "a cube-shaped S*" and the other shape are that shape with the concept's colours and pattern, all of it."""
    groups = []
    for concept in results.concepts:
        if concept.kind == "object":
            own = zip(tasks(concept), readings[concept.name], strict=True)
            groups.append([kept_whole(task, one) for task, found in own if task.name in SHAPES for one in found])
    return estimate(groups)


def auxiliary_table(results: Results) -> str:
    """What pictures of the A_i* of objects show."""
    lines = ["| A_i* | its photograph's background | its companion | the thing itself |", "|---|---|---|---|"]
    objects = [concept for concept in results.concepts if concept.kind == "object"]
    for training, readings in results.auxiliary.items():
        cells = []
        for score in (own_background, own_companion, shows_object):
            groups = []
            for concept in objects:
                own = zip(concept.scenes, readings[concept.name], strict=True)
                values = [score(scene, one) for scene, found in own for one in found]
                groups.append([value for value in values if value is not None])
            cells.append(str(estimate(groups)))
        lines.append(f"| {training} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(results: Results, arms: Sequence[Arm]) -> dict[str, Any]:
    """The figures of the tables, for programs."""

    def plain(value: Estimate) -> list[float]:
        return [round(number, 4) for number in (value.mean, value.low, value.high)]

    figures: dict[str, Any] = {
        "ceiling": {"fidelity": plain(estimate(results.scores(fidelity, results.ceiling)))},
        "cubes": {"ceiling": plain(cubes(results, results.ceiling))},
    }
    for arm in arms:
        readings = results.arms[arm.name]
        figures[arm.name] = {
            "fidelity": plain(estimate(results.scores(fidelity, readings))),
            "alignment": plain(estimate(results.scores(alignment, readings))),
            "leakage": plain(estimate(results.leaks(arm.name))),
            "leakage above base": plain(estimate(results.leaks_above_base(arm.name))),
        }
        if done := steps_done(results, arm):
            figures[arm.name]["steps"] = {stage: round(mean(steps), 1) for stage, steps in done.items()}
        figures["cubes"][arm.name] = plain(cubes(results, readings))
    return figures

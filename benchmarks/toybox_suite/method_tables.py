"""The tables that compare methods: what each reaches, and how its configuration was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.toybox_suite.arms import Arm
from benchmarks.toybox_suite.report import Results
from cictl.functional.means import last_and_best
from cictl.toybox.scoring import Estimate, alignment, estimate, fidelity, harmonic_estimate, look, unasked_companion

RULE = (
    "last: after the last step. best: after half of the steps or after all, whichever has the higher harmonic mean of fidelity "
    "and alignment over all concepts."
)


def harmonic(results: Results, arm: Arm) -> Estimate:
    """The harmonic mean of an arm's fidelity and alignment."""
    readings = results.arms[arm.name]
    return harmonic_estimate(results.scores(fidelity, readings), results.scores(alignment, readings))


def chosen(results: Results, arms: Sequence[Arm]) -> list[tuple[str, Arm]]:
    """Of each method its last arm and, where another is better, its best one; an arm without shares is neither."""
    found: list[tuple[str, Arm]] = []
    for drawn in dict.fromkeys(arm.drawn for arm in arms):
        own = [arm for arm in arms if arm.drawn == drawn]
        best = last_and_best([own[-1], *own[:-1]], lambda arm: harmonic(results, arm).mean)
        found += best if own[-1].training else [("", own[-1])]
    return found


def rows_table(results: Results, arms: Sequence[Arm]) -> str:
    """A line for each method's last and best result."""
    lines = ["| | share of the steps |" + _HEAD, "|---|---|" + _LINE]
    for which, arm in chosen(results, arms):
        about = f"{arm.about} ({which})" if which else arm.about
        lines.append(f"| {about} | {'' if arm.training is None else f'{arm.share:g}'} |{_cells(results, arm)}")
    return "\n".join(lines) + f"\n\n{RULE}"


def configurations_table(results: Results, arms: Sequence[Arm]) -> str:
    """A line for each configuration."""
    lines = ["| |" + _HEAD, "|---|" + _LINE]
    return "\n".join([*lines, *(f"| {arm.about} |{_cells(results, arm)}" for arm in arms)])


_HEAD = " fidelity | alignment | harmonic mean | colours and pattern | leakage above the base's | something beside it |"
_LINE = "---|" * 6


def _cells(results: Results, arm: Arm) -> str:
    readings = results.arms[arm.name]
    figures = (
        estimate(results.scores(fidelity, readings)),
        estimate(results.scores(alignment, readings)),
        harmonic(results, arm),
        estimate(replace(results, concepts=[one for one in results.concepts if one.kind == "object"]).scores(look, readings)),
        estimate(results.leaks_above_base(arm.name)),
        estimate(results.scores(unasked_companion, readings)),
    )
    return "".join(f" {figure} |" for figure in figures)


def summary(results: Results, arms: Sequence[Arm]) -> dict[str, Any]:
    """The harmonic means, for programs."""
    figures = {arm.name: harmonic(results, arm) for arm in arms}
    return {name: [round(number, 4) for number in (one.mean, one.low, one.high)] for name, one in figures.items()}

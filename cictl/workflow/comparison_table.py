"""The table of a comparison: a row for each method, what the figures depend on, and how it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cictl.evaluation.scores import Score
from cictl.functional.means import harmonic_mean, last_and_best
from cictl.workflow.concept import Source
from cictl.workflow.drawing import ways_to_draw
from cictl.workflow.evaluate import EvaluateOutcome
from cictl.workflow.results import Results, axes
from cictl.workflow.rows import folder_of, title_of
from cictl.workflow.trainings import Failure

LAST = "each method after its last step; the paper's Table 1 has each method's best epoch"
BEST = (
    "each method after its last step; best: of what was kept along the way, by the harmonic mean of {} and {} on these pictures, "
    "where that is another (the paper's Table 1: each method's best epoch, by what is not said)"
)
STD = "standard deviation with n - 1, over the means of the prompts"


@dataclass(frozen=True)
class Row:
    """What a method has learned by the end of its training, or at its best, and its figures.

    Attributes:
        method: base, a method, invert (stage 1 alone), or finetune (both stages).
        title: what the method is called.
        which: last, best (of those that were kept along the way), or both in one.
        steps: of its last stage that were done; 0 for the base.
        words: what stood for S* in the prompts that it drew.
        sampling: strength and avoid, as far as they have an effect on it.
        overall: each figure, as a mean over the prompts' means, and the standard deviation of those.
        results, sheet: where all figures and the pictures lie.
    """

    method: Source
    title: str
    which: str
    steps: int
    words: str
    sampling: dict[str, float]
    overall: dict[str, Score]
    results: str
    sheet: str

    @property
    def name(self) -> str:
        """What the table calls the row."""
        return f"{self.title}, best: {self.steps} steps" if self.which == "best" else self.title


@dataclass(frozen=True)
class CompareOutcome:
    """The table, and what it depends on.

    Attributes:
        chosen: what last and best mean.
        unlike: in what the trainings differ though no method has it for itself, such as the seed or the device.
        sampling: what the pictures of all methods have in common; of strength and avoid what was asked for, which has no effect
            on some of them.
        known_as: the toybox's own name of the concept, where its judge has read the pictures against ground truth.
        failed: the rows that are missing, and why.
        results, report: where the table lies, and a page with pictures and curves.
    """

    cictl: str
    concept: str
    base: dict[str, str]
    noun: str | None
    prompt_set: str
    count: int
    seed: int
    sampling: dict[str, Any]
    dinov2: dict[str, str] | None
    clip: dict[str, str] | None
    known_as: str | None
    std: str
    chosen: str
    unlike: list[str]
    rows: list[Row]
    failed: list[Failure]
    results: str
    report: str


def rows_of(row: Source, found: Sequence[EvaluateOutcome]) -> list[tuple[Row, Results]]:
    """What a method ended with, and its best where that is another, each with all that was measured of it."""
    return [(_row(row, which, one), one.measured) for which, one in last_and_best(found, lambda one: _quality(one.measured))]


def _quality(results: Results) -> float:
    """What the best of a training is best by."""
    pair = axes(results.overall)
    if pair is None:
        return 0.0
    kept, asked = (results.overall[name].mean or 0.0 for name in pair)
    return harmonic_mean(kept, asked)


def _row(row: Source, which: str, one: EvaluateOutcome) -> Row:
    measured = one.measured
    sampling = {name: measured.sampling[name] for name in ("strength", "avoid")}
    return Row(row, title_of(row), which, measured.steps, one.words, sampling, measured.overall, one.results, one.sheet)


def as_stored(outcome: CompareOutcome) -> CompareOutcome:
    """With paths from its own folder on, which hold wherever the file is read."""
    rows = []
    for row in outcome.rows:
        own = folder_of(Path(row.method), row.steps if row.which == "best" else None)
        results, sheet = ((own / Path(path).name).as_posix() for path in (row.results, row.sheet))
        rows.append(replace(row, results=results, sheet=sheet))
    return replace(outcome, rows=rows, results=Path(outcome.results).name, report=Path(outcome.report).name)


def facts(outcome: CompareOutcome) -> dict[str, str]:
    """What the figures depend on, in a few lines."""
    pictures = f"{outcome.count} {'picture' if outcome.count == 1 else 'pictures'}"
    failed = {"failed": "; ".join(f"{one.title}: {one.reason}" for one in outcome.failed)} if outcome.failed else {}
    said = failed | {
        "base": f"{outcome.base['id']}, {outcome.base['identity'][:12]}",
        "prompts": f"{outcome.prompt_set}, {pictures} of each, seeds from {outcome.seed} on, the same noise for every method",
        "steps": ", ".join(f"{row.method} {row.steps}" for row in outcome.rows if row.steps and row.which != "best") or "none",
        "S*": ", ".join(dict.fromkeys(f"{row.method} {row.words!r}" for row in outcome.rows)),
        "chosen": outcome.chosen,
    }
    if drawn := _drawn(outcome.rows):
        said["drawn"] = drawn
    if outcome.unlike:
        said["unlike"] = f"the trainings differ in {'; '.join(outcome.unlike)}"
    if outcome.known_as:
        said["judge"] = f"the toybox's, against the ground truth of {outcome.known_as}; less leakage is better"
    return said | {"std": outcome.std}


def _drawn(rows: Sequence[Row]) -> str:
    """What has an effect on some rows, and on which."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        if row.which != "best" and (ways := ways_to_draw(row.sampling)):
            methods.setdefault(", ".join(ways), []).append(row.method)
    return "; ".join(f"{', '.join(some)} with {ways}" for ways, some in methods.items())

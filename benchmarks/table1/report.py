"""The table out of the jobs' results: means over subjects with their intervals, beside the paper's figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.table1.dreambench import DreamBench
from cictl.functional.means import harmonic_mean, last_and_best
from cictl.toybox.scoring import Estimate, estimate
from cictl.workflow.concept import Source
from cictl.workflow.rows import title_of

FIGURES = {"dinov2": "DINOv2", "clip_t": "CLIP-T"}
PAPER: Mapping[str, Mapping[str, float]] = {
    "base": {"dinov2": 0.314, "clip_t": 0.329},
    "textual-inversion": {"dinov2": 0.458, "clip_t": 0.297},
    "dreambooth": {"dinov2": 0.599, "clip_t": 0.277},
    "custom-diffusion": {"dinov2": 0.457, "clip_t": 0.316},
    "disenbooth": {"dinov2": 0.530, "clip_t": 0.301},
    "invert": {"dinov2": 0.465, "clip_t": 0.304},
    "finetune": {"dinov2": 0.530, "clip_t": 0.302},
}
"""Table 1 of arXiv 2508.07755."""

_LAST = "last: after the last step (the paper's Table 1: each method's best epoch)."
_BEST = (
    "last: after the last step. best: after the same share of the steps for all subjects, {}, whichever has the highest harmonic "
    "mean of {} and {} over all subjects, where that is another (the paper's Table 1: each method's best epoch, by what is not "
    "said). It is chosen by the figures that it shows, which flatters it."
)
_INTERVALS = "In parentheses 95% bootstrap intervals over subjects; each subject was trained once."


@dataclass(frozen=True)
class Outcome:
    """All that the table is made of.

    Attributes:
        results: what the jobs wrote, by row and subject.
        failed: what went wrong, by job.
        overrides: what --set and --model gave.
        last_alone: leave out what was kept along the way.
    """

    dreambench: DreamBench
    rows: Sequence[Source]
    results: Mapping[Source, Mapping[str, Mapping[str, Any]]]
    failed: Mapping[str, str]
    overrides: Mapping[str, Any]
    last_alone: bool = False

    def steps(self, row: Source) -> list[int]:
        """After how many steps all subjects of a row are measured, the last first; the base after 0."""
        own = list(self.results[row].values())
        if not own:
            return []
        last = int(own[0]["steps"])  # of all subjects, since it is part of the identity
        common = set.intersection(*({int(step) for step in result["figures"]} for result in own))
        return [last, *([] if self.last_alone else sorted(common - {last}))]

    def share(self, row: Source, step: int) -> float | None:
        """Of a row's steps; None of the base, which has none."""
        return step / self.steps(row)[0] if step else None

    def mean(self, row: Source, step: int, figure: str) -> Estimate | None:
        """A figure of a row after so many steps, over the subjects that have it, each of which counts the same."""
        means = self._means(row, step, figure)
        return estimate([[mean] for mean in means]) if means else None

    def harmonic(self, row: Source, step: int) -> float | None:
        """The harmonic mean of the figures' means; None where one of them was not measured."""
        one, other = (self._means(row, step, figure) for figure in FIGURES)
        return harmonic_mean(fmean(one), fmean(other)) if one and other else None

    def compared(self, row: Source) -> list[int]:
        """The steps that the best of a row is chosen from, the last first; none where there is no choice."""
        steps = [step for step in self.steps(row) if self.harmonic(row, step) is not None]
        return steps if len(steps) > 1 else []

    def chosen(self, row: Source) -> list[tuple[str, int]]:
        """A row's last and, where another is better, its best, each with its steps; the base is neither."""
        if compared := self.compared(row):
            return last_and_best(compared, lambda step: self.harmonic(row, step) or 0.0)
        return [("last" if step else "", step) for step in self.steps(row)[:1]]

    def every(self, *keys: str) -> list[Any]:
        """What the results have under ``keys``, each value once."""
        found: list[Any] = []
        for own in self.results.values():
            for result in own.values():
                value: Any = result
                for key in keys:
                    value = value[key]
                if value not in found:
                    found.append(value)
        return found

    def _means(self, row: Source, step: int, figure: str) -> list[float]:
        """Of each subject that has the figure."""
        scores = [result["figures"][str(step)].get(figure) for result in self.results[row].values()]
        return [score["mean"] for score in scores if score and score["mean"] is not None]


def markdown(outcome: Outcome) -> str:
    """The table with its caption."""
    heads = ["share of the steps", *FIGURES.values(), "subjects", *(f"{name}, paper" for name in FIGURES.values())]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for row in outcome.rows:
        count, paper = len(outcome.results[row]), [f"{PAPER[row][figure]:.3f}" for figure in FIGURES]
        if not count:
            lines.append(f"| {' | '.join([title_of(row), '', *(_shown(None, 0) for _ in FIGURES), '0', *paper])} |")
        for which, step in outcome.chosen(row):
            title = f"{title_of(row)} ({which})" if which else title_of(row)
            own = [_shown(outcome.mean(row, step, figure), count) for figure in FIGURES]
            lines.append(f"| {' | '.join([title, _share(outcome.share(row, step)), *own, str(count), *paper])} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in caption(outcome))]) + "\n"


def caption(outcome: Outcome) -> list[str]:
    """What the figures depend on, and what is not in them."""
    missing, measured = outcome.dreambench.missing, set[str]().union(*outcome.results.values())
    known = len(outcome.dreambench.subjects) + len(missing)
    absent = f"; the photographs of {', '.join(missing)} are not there" if missing else ""
    said = [f"{len(measured)} of {known} subjects of DreamBench{absent}."]
    if any(own.keys() != measured for own in outcome.results.values()):
        said.append("A row is over the subjects that it has; rows of different subjects are not to be compared.")
    for name in ("base", "dinov2", "clip"):
        models = [f"{model['id']}, {model['identity'][:12]}" if model else "none" for model in outcome.every("models", name)]
        said.append(f"{name}: {'; '.join(models) or 'not measured'}.")
    counted = sorted({len(prompts) for prompts in outcome.every("identity", "prompts")})
    pictures = outcome.every("count")
    if counted and pictures:
        said.append(f"{_either(counted)} prompts for each subject, {_either(pictures)} of each, the same noise for every method.")
    said += [_INTERVALS, _rule(outcome)]
    if differ := _differ(outcome.every("circumstances")):
        said.append(f"Not all were made alike: {differ}.")
    if outcome.overrides:
        said.append(f"Given beside the defaults: {', '.join(f'{key}={value}' for key, value in outcome.overrides.items())}.")
    if outcome.failed:
        said.append(f"Failed: {', '.join(outcome.failed)}.")
    return said


def _differ(circumstances: Sequence[Mapping[str, Any]]) -> str:
    """In what the machines and libraries of the results differ."""
    values = {
        key: list(dict.fromkeys(str(one[key]) for one in circumstances if key in one)) for one in circumstances for key in one
    }
    return "; ".join(f"{key} {_either(own)}" for key, own in values.items() if len(own) > 1)


def summary(outcome: Outcome) -> dict[str, Any]:
    """The same for programs."""
    rows = {}
    for row in outcome.rows:
        steps = [step for _, step in outcome.chosen(row)]
        rows[row] = {
            "title": title_of(row),
            "subjects": sorted(outcome.results[row]),
            "last": steps[0] if steps else None,
            "best": steps[-1] if outcome.compared(row) else None,
            "steps": {str(step): _figures(outcome, row, step) for step in sorted(outcome.steps(row))},
            "paper": dict(PAPER[row]),
        }
    return {
        "rows": rows,
        "caption": caption(outcome),
        "missing": list(outcome.dreambench.missing),
        "failed": dict(outcome.failed),
        "overrides": dict(outcome.overrides),
        "circumstances": outcome.every("circumstances"),
        "models": outcome.every("models"),
    }


def _figures(outcome: Outcome, row: Source, step: int) -> dict[str, Any]:
    means = {figure: outcome.mean(row, step, figure) for figure in FIGURES}
    return {
        "share": outcome.share(row, step),
        "figures": {name: [one.mean, one.low, one.high] if one else None for name, one in means.items()},
        "harmonic_mean": outcome.harmonic(row, step),
    }


def _rule(outcome: Outcome) -> str:
    """What last and best mean, and of which shares the best is the best."""
    compared = {outcome.share(row, step) for row in outcome.rows for step in outcome.compared(row)}
    shares = _either([_share(share) for share in sorted(share for share in compared if share)])
    return _BEST.format(shares, *FIGURES.values()) if compared else _LAST


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3g}"


def _shown(one: Estimate | None, subjects: int) -> str:
    if one is None or math.isnan(one.mean):
        return "not measured"
    return f"{one.mean:.3f}" + (f" ({one.low:.3f}-{one.high:.3f})" if subjects > 1 else "")


def _either(values: Sequence[object]) -> str:
    return " or ".join(map(str, values))

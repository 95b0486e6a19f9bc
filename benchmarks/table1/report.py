"""The table out of the jobs' results: means over subjects with their intervals, beside the paper's figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.table1.dreambench import DreamBench
from cictl.toybox.scoring import Estimate, estimate
from cictl.workflow.compare import title_of
from cictl.workflow.concept import Source

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

_CHOSEN = "Each method after its last step; the paper's Table 1 has each method's best epoch."
_INTERVALS = "In parentheses 95% bootstrap intervals over subjects; each subject was trained once."


@dataclass(frozen=True)
class Outcome:
    """All that the table is made of.

    Attributes:
        results: what the jobs wrote, by row and subject.
        failed: what went wrong, by job.
        overrides: what --set and --model gave.
    """

    dreambench: DreamBench
    rows: Sequence[Source]
    results: Mapping[Source, Mapping[str, Mapping[str, Any]]]
    failed: Mapping[str, str]
    overrides: Mapping[str, Any]

    def mean(self, row: Source, figure: str) -> Estimate | None:
        """A figure of a row over the subjects that have it, each of which counts the same."""
        scores = [result["figures"].get(figure) for result in self.results[row].values()]
        means = [score["mean"] for score in scores if score and score["mean"] is not None]
        return estimate([[mean] for mean in means]) if means else None

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


def markdown(outcome: Outcome) -> str:
    """The table with its caption."""
    heads = [*FIGURES.values(), "subjects", *(f"{name}, paper" for name in FIGURES.values())]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for row in outcome.rows:
        count = len(outcome.results[row])
        own = [_shown(outcome.mean(row, figure), count) for figure in FIGURES]
        paper = [f"{PAPER[row][figure]:.3f}" for figure in FIGURES]
        lines.append(f"| {title_of(row)} | {' | '.join([*own, str(count), *paper])} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in caption(outcome))]) + "\n"


def caption(outcome: Outcome) -> list[str]:
    """What the figures depend on, and what is not in them."""
    there, missing = outcome.dreambench.subjects, outcome.dreambench.missing
    said = [f"{len(there)} of {len(there) + len(missing)} subjects of DreamBench{_named('without', missing)}."]
    counts = {len(own) for own in outcome.results.values()}
    if len(counts) > 1 or counts != {len(there)}:
        said.append("A row is over the subjects that it has; rows of different subjects are not to be compared.")
    for name in ("base", "dinov2", "clip"):
        models = [f"{model['id']}, {model['identity'][:12]}" if model else "none" for model in outcome.every("models", name)]
        said.append(f"{name}: {'; '.join(models) or 'not measured'}.")
    counted = sorted({len(prompts) for prompts in outcome.every("identity", "prompts")})
    pictures = outcome.every("count")
    if counted and pictures:
        said.append(f"{_either(counted)} prompts for each subject, {_either(pictures)} of each, the same noise for every method.")
    said += [_INTERVALS, _CHOSEN]
    if outcome.overrides:
        said.append(f"Given beside the defaults: {', '.join(f'{key}={value}' for key, value in outcome.overrides.items())}.")
    if outcome.failed:
        said.append(f"Failed: {', '.join(outcome.failed)}.")
    return said


def summary(outcome: Outcome) -> dict[str, Any]:
    """The same for programs."""
    rows = {}
    for row in outcome.rows:
        means = {figure: outcome.mean(row, figure) for figure in FIGURES}
        rows[row] = {
            "title": title_of(row),
            "subjects": sorted(outcome.results[row]),
            "figures": {name: [one.mean, one.low, one.high] if one else None for name, one in means.items()},
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


def _shown(one: Estimate | None, subjects: int) -> str:
    if one is None or math.isnan(one.mean):
        return "not measured"
    return f"{one.mean:.3f}" + (f" ({one.low:.3f}-{one.high:.3f})" if subjects > 1 else "")


def _named(word: str, names: Sequence[str]) -> str:
    return f", {word} {', '.join(names)}" if names else ""


def _either(values: Sequence[int]) -> str:
    return " or ".join(map(str, values))

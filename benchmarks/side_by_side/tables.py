"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side_by_side.turns import Timed, paired_ratio

_HEADINGS = (
    "", "median ms", "p10", "p90", "times ours", "loader ms", "peak MiB", "TFLOP", "MFU", "launches or calls",
)  # fmt: skip


def summaries(timed: Sequence[Timed]) -> list[dict[str, Any]]:
    """A row of figures for each; the first's are what the others are compared with."""
    rows = [one.summary() for one in timed]
    for row, one in zip(rows[1:], timed[1:], strict=True):
        row["times_ours"] = paired_ratio(timed[0], one)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a program; the first is what the others' times are divided by, round by round."""
    lines = [f"| {' | '.join(_HEADINGS)} |", "|" + "---|" * len(_HEADINGS)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)])


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        return [row["name"], f"ended by itself: {row['error'].splitlines()[-1]}", *[""] * (len(_HEADINGS) - 2)]
    ratio = row.get("times_ours")
    launches = f"{row['calls']:.0f} calls" if row["launches"] is None else f"{row['launches']:.0f} launches"
    return [
        row["name"],
        f"{row['median_ms']:.1f}",
        f"{row['p10_ms']:.1f}",
        f"{row['p90_ms']:.1f}",
        "1" if ratio is None else f"{ratio:.2f}",
        f"{row['loader_ms']:.1f}",
        "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
        f"{row['flops'] / 1e12:.3g}",
        f"{row['mfu']:.0%}",
        launches,
    ]

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
    name = f"{row['name']} (ended by itself: {row['error'].splitlines()[-1]})" if "error" in row else row["name"]
    if "median_ms" not in row:
        return [name, *[""] * (len(_HEADINGS) - 1)]
    ratio = row.get("times_ours", 1)
    counts = {"launches": row["launches"], "calls": row["calls"]}
    counted = [f"{count:.0f} {name}" for name, count in counts.items() if count is not None]
    return [
        name,
        f"{row['median_ms']:.1f}",
        f"{row['p10_ms']:.1f}",
        f"{row['p90_ms']:.1f}",
        "" if ratio is None else f"{ratio:.2f}" if "times_ours" in row else "1",
        f"{row['loader_ms']:.1f}",
        "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
        "" if row["flops"] is None else f"{row['flops'] / 1e12:.3g}",
        "" if row["mfu"] is None else f"{row['mfu']:.0%}",
        next(iter(counted), ""),
    ]

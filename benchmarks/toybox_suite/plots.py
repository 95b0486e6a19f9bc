"""The tables' main figures as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.toybox_suite.arms import Arm


def plot(figures: dict[str, Any], arms: Sequence[Arm], path: Path) -> None:
    """Fidelity against alignment, and leakage, each with its 95% interval; points have the colours of the bars beside them.

    Needs matplotlib (the extra ``benchmarks``).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    canvas, (plane, bars) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    for index, arm in enumerate(arms):
        kept, asked = figures[arm.name]["fidelity"], figures[arm.name]["alignment"]
        leak = figures[arm.name]["leakage above base"]
        colour = mpl.colormaps["tab10" if len(arms) <= 10 else "tab20"](index)
        plane.errorbar(asked[0], kept[0], xerr=_reach(asked), yerr=_reach(kept), fmt="o", color=colour)
        bars.barh(index, leak[0], xerr=_reach(leak), color=colour, alpha=0.8)
    ceiling = figures["ceiling"]["fidelity"][0]
    plane.axhline(ceiling, color="grey", linestyle=":")
    plane.text(0.01, ceiling, "the judge's ceiling", va="top", fontsize=8, color="grey", transform=plane.get_yaxis_transform())
    plane.set(xlabel="alignment: what the prompt asks for", ylabel="fidelity: what the concept keeps")
    bars.set_yticks(range(len(arms)), [arm.about for arm in arms], fontsize=8)
    bars.invert_yaxis()
    bars.axvline(0, color="grey", linewidth=0.8)
    bars.set(xlabel="leakage above the base's")
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def _reach(estimate: Sequence[float]) -> list[list[float]]:
    mean, low, high = estimate
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]

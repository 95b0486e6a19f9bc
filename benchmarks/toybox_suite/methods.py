"""The seven rows of the paper's Table 1, and the eight configurations that each method was tuned over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.toybox_suite.arms import THE_NOUN, WORDS, Arm, Training
from cictl.config import METHODS, Method, Stage, group_of
from cictl.workflow.drawing import changes_unet
from cictl.workflow.rows import title_of

Tuned = Method | Literal["finetune"]
TUNED: tuple[Tuned, ...] = (*METHODS, "finetune")

NOUN = Arm("base-noun", f"{title_of('base')}, by the noun", "noun")
SHARES = (0.5, 1.0)
STRENGTHS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25)
AVOIDS = (0.25, 0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Grid:
    """Four ways to train, each looked at after half of its steps and after all of them: eight configurations.

    Attributes:
        steps: of the last stage.
        ways: overrides of ci.yaml, by what they are called.
    """

    steps: int
    ways: Mapping[str, Mapping[str, Any]]


def _rates(group: str, *rates: float) -> dict[str, dict[str, Any]]:
    return {f"{rate:g}": {f"{group}.learning_rate": rate} for rate in rates}


GRIDS: Mapping[Tuned, Grid] = {
    "textual-inversion": Grid(300, _rates("textual_inversion", 2e-3, 5e-3, 1e-2, 2e-2)),
    "dreambooth": Grid(120, _rates("dreambooth", 2e-5, 5e-5, 1e-4, 2e-4)),
    "custom-diffusion": Grid(200, _rates("custom_diffusion", 3e-4, 1e-3, 2e-3, 5e-3)),
    "disenbooth": Grid(200, _rates("disenbooth", 3e-4, 1e-3, 2e-3, 4e-3)),
    "finetune": Grid(
        60,
        {
            f"{first:g}, {second:g}": {"invert.learning_rate": first, "finetune.learning_rate": second}
            for first in (2e-3, 5e-3)
            for second in (5e-4, 1e-3)
        },
    ),
}


# What ours makes of the noun that the other methods are told.
TOLD = (
    WORDS,
    NOUN,
    Arm(
        "finetune-told",
        f"{title_of('finetune')}, S\\* starts at the noun",
        "finetune",
        Training("finetune-told", "S* starts at the noun", {"concept.start": THE_NOUN}),
    ),
)


def rows(methods: Sequence[Tuned]) -> tuple[Arm, ...]:
    """The base, and ``methods`` with the toybox's preset, after half of the steps and after all; stage 1 comes with both."""
    arms = [WORDS, NOUN]
    for method in methods:
        training = Training(f"table1-{method}", title_of(method), {"checkpoint.snapshots": len(SHARES) - 1}, _other(method))
        drawn: list[Stage] = ["invert", method] if method == "finetune" else [method]
        arms += [Arm(f"{one}@{share:g}", title_of(one), one, training, share) for one in drawn for share in SHARES]
    return tuple(arms)


def configurations(methods: Sequence[Tuned]) -> tuple[Arm, ...]:
    """The eight of each of ``methods``."""
    arms = [WORDS, NOUN]
    for method in methods:
        grid, steps_key = GRIDS[method], f"{group_of(method)}.steps"
        for way, overrides in grid.ways.items():
            name = f"{method}-{way.replace(', ', '-')}"
            training = Training(name, name, {**overrides, steps_key: grid.steps, "checkpoint.snapshots": 1}, _other(method))
            arms += [
                Arm(f"{name}@{share:g}", f"{title_of(method)}, {way}, {round(share * grid.steps)} steps", method, training, share)
                for share in (0.5, 1.0)
            ]
    return tuple(arms)


def ways_to_draw(methods: Sequence[Tuned]) -> tuple[Arm, ...]:
    """Pictures of one training of each of ``methods`` that changes the UNet, with less and more of the change; of ours also
    led away from the A_i*, and of its stage 1."""
    arms = [WORDS, NOUN]
    for method in filter(changes_unet, methods):
        training = Training(f"drawing-{method}", title_of(method), {}, _other(method))
        ways: list[tuple[Stage, float, float]] = [(method, strength, 0.0) for strength in STRENGTHS]
        if method == "finetune":
            ways += [("finetune", 1.0, avoid) for avoid in AVOIDS]
            ways += [("finetune", 0.9, 0.5), ("invert", 1.0, 0.0), ("invert", 1.0, 0.5)]
        for drawn, strength, avoid in ways:
            name, about = f"{drawn}-strength-{strength:g}-avoid-{avoid:g}", f"{title_of(drawn)}: strength {strength:g}"
            about += f", avoid {avoid:g}" if drawn in ("invert", "finetune") else ""
            arms.append(Arm(name, about, drawn, training, strength=strength, avoid=avoid))
    return tuple(arms)


def _other(method: Tuned) -> Method | None:
    return None if method == "finetune" else method

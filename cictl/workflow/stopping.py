"""Ending a training before its steps, once the loss on a fixed batch hardly changes any more. Imports no torch.

The rule changes no step, only how many there are. It is a function of the evaluations, which a checkpoint holds, so that
a run that was stopped ends where the uninterrupted one would have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from cictl.config import Stage, Training, group_of
from cictl.events import LossEvaluated, Observer
from cictl.functional.stopping import variance_ratio
from cictl.records import Checkpoint
from cictl.workflow.batches import fixed_batches

if TYPE_CHECKING:
    from cictl.workflow.prepared import Prepared

_RECORD = "evaluations"  # in the manifest of a checkpoint


@dataclass
class Watch:
    """Evaluates a training every ``settings.stop_every`` steps, and says when it has converged.

    Attributes:
        evaluate: gives the loss on the fixed batch, the same in all processes.
        losses: the evaluations so far.
        converged: whether there was one after the last step, and it was the last one needed. Between evaluations nothing
            has converged: a run that goes on with another ratio, and is stopped before the next, is not done.
    """

    settings: Training
    evaluate: Callable[[], float]
    observe: Observer
    losses: list[float] = field(default_factory=list)
    converged: bool = False

    def __call__(self, done: int) -> bool:
        """Evaluate if that is due after ``done`` steps, and say whether the training is to end."""
        self.converged = False
        if self.settings.stop_every and done % self.settings.stop_every == 0:
            self.losses.append(self.evaluate())
            ratio = _ratio(self.losses, self.settings)
            self.observe(LossEvaluated(done, self.losses[-1], ratio))
            self.converged = ratio < self.settings.stop_ratio
        return self.converged

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {_RECORD: {"every": self.settings.stop_every, "losses": list(self.losses)}} if self.settings.stop_every else {}

    def restore(self, manifest: Mapping[str, Any]) -> None:
        """Go on with the evaluations of a checkpoint, unless they lay other distances apart."""
        self.losses = list(_recorded(manifest, self.settings))


def ended_early(stage: Stage, checkpoint: Checkpoint, settings: Training) -> str:
    """Why the training of ``checkpoint`` ended before its steps, and would with ``settings``; nothing if it did not."""
    ratio, group = _ratio(_recorded(checkpoint.manifest, settings), settings), group_of(stage)
    if not checkpoint.complete or checkpoint.step >= settings.steps or not ratio < settings.stop_ratio:
        return ""
    return (
        f"ended early, after {checkpoint.step} of {settings.steps} steps: the variance of the loss on the fixed batch over the "
        f"last {settings.stop_window} is {ratio:.3f} of that over all, less than {group}.stop_ratio, {settings.stop_ratio:g}; "
        f"to go on: --set {group}.stop_every=0"
    )


def never_stops(stage: Stage, settings: Training) -> str:
    """What is wrong with settings by which no training ends early, though it is evaluated; else nothing."""
    group, steps, every, window = group_of(stage), settings.steps, settings.stop_every, settings.stop_window
    if not every or _first_end(every, window) < steps:
        return ""
    found = f"the {group}.stop_window of {window} and evaluations every {every}"
    why = f"{group}.steps is {steps}, and with {found} it cannot end early"
    often = min(every, max(1, (steps - 1) // 4))
    wide = max(2 * often, steps // 2)
    if _first_end(often, wide) >= steps:
        return f"{why}, nor with any other: the training is too short"
    return f"{why}; it can with --set {group}.stop_every={often} --set {group}.stop_window={wide}"


def _first_end(every: int, window: int) -> int:
    """The step after which a training can end at the earliest: the window must be full, and not all that there is."""
    return (_count(every, window) + 1) * every


def _count(every: int, window: int) -> int:
    """How many evaluations a window of so many steps has."""
    return max(2, window // every)


def fixed_batch_loss(prepared: Prepared, settings: Training, seed: int, stage: Stage, parts: int) -> Callable[[], float]:
    """A function that computes Eq. 1, as the method does, on a batch that is drawn once.

    Args:
        parts: of a step's batch.
    """
    import torch

    batches = cache(lambda: fixed_batches(prepared, settings, seed, stage, parts))

    def evaluate() -> float:
        with torch.no_grad():
            losses = [prepared.method.diffusion(batch) for batch in batches()]
        return float(torch.stack(losses).mean())

    return evaluate


def _recorded(manifest: Mapping[str, Any], settings: Training) -> Sequence[float]:
    record = manifest.get(_RECORD, {})
    losses: list[float] = record.get("losses", []) if record.get("every") == settings.stop_every else []
    return losses


def _ratio(losses: Sequence[float], settings: Training) -> float:
    return variance_ratio(losses, _count(settings.stop_every, settings.stop_window)) if losses else 1.0

"""A training whose loss is no number any more, which ends before anything of it is saved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cictl.config import Stage, command_of, group_of
from cictl.errors import CictlError
from cictl.events import Event, Observer, StepCompleted
from cictl.workflow.stage import TITLES

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime

_SKIPPED = 20  # steps in a row that fp16's scaler may skip before it has found its scale


def ended_where_it_diverges(stage: Stage, rate: float, runtime: Runtime, observe: Observer) -> Observer:
    """``observe``, by which a training of ``stage`` ends at a step whose loss is infinite or no number.

    What is trained would be none either from then on. A step is told before it is saved, so that the last checkpoint is whole.

    Args:
        rate: at which it learns.
    """
    allowed, in_a_row = (_SKIPPED if runtime.skips else 0), 0

    def tell(event: Event) -> None:
        nonlocal in_a_row
        observe(event)
        if not isinstance(event, StepCompleted):
            return
        in_a_row = 0 if all(map(math.isfinite, event.losses.values())) else in_a_row + 1
        if in_a_row > allowed:
            again = f"{command_of(stage)} --restart --set"
            precision = "" if runtime.dtype_name == "fp32" else f"\nin full precision: {again} model.dtype=fp32"
            raise CictlError(
                f"{TITLES[stage]}: the loss of step {event.step} is no number, so that nothing more can be learned",
                f"with a lower rate: {again} {group_of(stage)}.learning_rate={rate / 10:g}{precision}\n"
                "or with other values of the settings that were changed",
                slug="loss-not-finite",
            )

    return tell

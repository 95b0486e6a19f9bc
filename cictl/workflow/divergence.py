"""A training whose loss or result is no number any more, which ends before anything of it is saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cictl.config import Stage, command_of, group_of
from cictl.errors import CictlError
from cictl.events import Event, Observer, StepCompleted
from cictl.workflow.stage import TITLES

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.engine.runtime import Runtime

_SKIPPED = 20  # steps in a row that fp16's scaler may skip before it has found its scale


@dataclass(frozen=True)
class Divergence:
    """How a training of ``stage`` ends when it leaves the numbers.

    Attributes:
        rate: at which it learns.
    """

    stage: Stage
    rate: float
    runtime: Runtime

    def __call__(self, step: int, what: str) -> CictlError:
        """The error of a ``step`` of which ``what`` is no number."""
        again = f"{command_of(self.stage)} --restart --set"
        precision = "" if self.runtime.dtype_name == "fp32" else f"\nin full precision: {again} model.dtype=fp32"
        return CictlError(
            f"{TITLES[self.stage]}: the {what} of step {step} is no number, so that nothing more can be learned",
            f"with a lower rate: {again} {group_of(self.stage)}.learning_rate={self.rate / 10:g}{precision}\n"
            "or with other values of the settings that were changed",
            slug="loss-not-finite",
        )

    def watching(self, observe: Observer) -> Observer:
        """``observe``, by which the training ends at a step whose loss is infinite or no number, as all after it would be.

        A step is told before it is saved, so that the last checkpoint is whole.
        """
        allowed, in_a_row = (_SKIPPED if self.runtime.skips else 0), 0

        def tell(event: Event) -> None:
            nonlocal in_a_row
            observe(event)
            if not isinstance(event, StepCompleted):
                return
            in_a_row = 0 if all(map(math.isfinite, event.losses.values())) else in_a_row + 1
            if in_a_row > allowed:
                raise self(event.step, "loss")

        return tell

    def require_finite(self, step: int, trained: Iterable[Tensor]) -> None:
        """End the training where ``trained`` holds what is no number: an update may do that after a loss that is one."""
        if not all_finite(trained):
            raise self(step, "result")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether ``tensors`` hold numbers alone. Their device is waited for."""
    import torch

    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

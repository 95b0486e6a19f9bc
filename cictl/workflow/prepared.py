"""What a training needs, once the model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.data.draws import Batch, EncodedPhotographs
    from cictl.engine.training import TrainingMethod

    class StageMethod(TrainingMethod, Protocol):
        """A method whose result can be saved, and which can be judged by the diffusion loss of the photographs alone."""

        def diffusion(self, batch: Batch) -> Tensor: ...
        def result(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Prepared:
    """What a stage needs to train.

    Attributes:
        preview: draws a picture after so many steps.
        timesteps: of the noise schedule.
        gradient_clip: the largest norm of a step's gradients together; None is any.
        class_pictures: for a loss that keeps what the noun meant; None where no loss does.
        rates: of what is not trained at the rate of the stage, by name.
    """

    method: StageMethod
    photographs: EncodedPhotographs
    preview: Callable[[int], None]
    timesteps: int
    gradient_clip: float | None = None
    class_pictures: EncodedPhotographs | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

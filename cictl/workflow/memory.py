"""A device whose memory is not enough: said in words, for training and generation alike. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cictl.errors import ResourceError, means_out_of_memory
from cictl.events import Note, Observer

if TYPE_CHECKING:
    import numpy as np

    from cictl.workflow.plans import Plan


@contextmanager
def out_of_memory_explained(hint: str) -> Iterator[None]:
    """Turn what torch and Python raise when memory runs out into a ResourceError with ``hint``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not means_out_of_memory(error):
            raise
        raise ResourceError("the memory of the device is not enough", hint, slug="memory-full") from None


@dataclass
class FittingBatches:
    """Draws pictures at most so many at a time; where the memory is not enough for them, half of them from then on.

    Attributes:
        draw: the pictures of some plans, all at once.
        most: how many at a time.
        observe: is told of a smaller number.
    """

    draw: Callable[[Sequence[Plan]], Iterable[np.ndarray]]
    most: int
    observe: Observer

    def __call__(self, plans: Sequence[Plan]) -> list[np.ndarray]:
        """The pictures of ``plans``, in their order.

        Raises:
            RuntimeError, MemoryError: as they came, if a single one does not fit.
        """
        pictures: list[np.ndarray] = []
        while len(pictures) < len(plans):
            part = plans[len(pictures) : len(pictures) + self.most]
            if (drawn := self._draw(part)) is None:
                self.most = len(part) // 2
                self.observe(Note(f"{len(part)} pictures at a time do not fit into the memory: {self.most} from here on"))
            else:
                pictures += drawn
        return pictures

    def _draw(self, part: Sequence[Plan]) -> list[np.ndarray] | None:
        """None if they do not fit; what the failed attempt held is free again when this returns."""
        try:
            return list(self.draw(part))
        except (RuntimeError, MemoryError) as error:
            if len(part) == 1 or not means_out_of_memory(error):
                raise
            return None

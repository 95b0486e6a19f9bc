"""What a training computes on: the parts of a step's batch, and of the fixed batch that it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from cictl.config import Stage, Training
from cictl.processes import Processes

if TYPE_CHECKING:
    from cictl.data.draws import Batch
    from cictl.workflow.prepared import Prepared


def step_batches(prepared: Prepared, settings: Training, seed: int, stage: Stage, processes: Processes, step: int) -> list[Batch]:
    """The parts of a step's batch that this process computes: of P processes, every P-th, from its rank on."""
    from cictl.data.draws import draw_batch

    size = settings.batch_size // (settings.accumulation * processes.count)
    begins = range(processes.rank * size, settings.batch_size, processes.count * size)
    one = partial(
        draw_batch, seed=seed, step=step, batch_size=settings.batch_size, timesteps=prepared.timesteps, spread=settings.timesteps
    )
    return _parts(prepared, stage, one, [range(start, start + size) for start in begins])


def fixed_batches(prepared: Prepared, settings: Training, seed: int, stage: Stage, parts: int) -> list[Batch]:
    """A batch that has each photograph once at least, in parts as large as those of a step, of which there are ``parts``.

    It has no class pictures: what is judged is Eq. 1.
    """
    from cictl.data.draws import evaluation_batch

    size = settings.batch_size // parts
    count = settings.batch_size * ceil(len(prepared.photographs.keys) / settings.batch_size)
    one = partial(evaluation_batch, seed=seed, count=count, timesteps=prepared.timesteps)
    judged = replace(prepared, class_pictures=None)
    return _parts(judged, stage, one, [range(start, start + size) for start in range(0, count, size)])


def _parts(prepared: Prepared, stage: Stage, draw: Callable[..., Batch], parts: Sequence[range]) -> list[Batch]:
    """A batch for each range of samples, with as many class pictures, where a loss asks for them."""
    batches = [draw(prepared.photographs, stage=stage, samples=part) for part in parts]
    if (pictures := prepared.class_pictures) is None:
        return batches
    return [
        replace(batch, class_pictures=draw(pictures, stage=f"{stage}/class", samples=part))
        for batch, part in zip(batches, parts, strict=True)
    ]

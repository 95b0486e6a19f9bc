"""How anything is trained: one loop for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor, nn

from cictl.data.draws import Batch
from cictl.engine.runtime import Runtime, StopRequest
from cictl.events import Observer, Progress, StepCompleted
from cictl.processes import Processes


class StepLoss(Protocol):
    """What a step goes down, and the unweighted terms that it is made of."""

    @property
    def total(self) -> Tensor: ...
    @property
    def terms(self) -> dict[str, Tensor]: ...


class TrainingMethod(Protocol):
    """What is trained, and with which loss."""

    def trainable(self) -> dict[str, nn.Parameter]: ...
    def loss(self, batch: Batch) -> StepLoss: ...


@dataclass(frozen=True)
class Schedule:
    """From ``first`` steps done to ``last``, and how many steps lie between reports and checkpoints."""

    first: int
    last: int
    report_every: int
    checkpoint_every: int


def adamw(
    method: TrainingMethod, *, learning_rate: float, weight_decay: float, rates: Mapping[str, float] | None = None
) -> torch.optim.AdamW:
    """AdamW with constant rates over what ``method`` trains; fused where there is a GPU.

    Args:
        rates: of parameters that have another rate than ``learning_rate``, by name.
    """
    named = method.trainable()
    fused = all(parameter.is_cuda for parameter in named.values())
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        by_rate.setdefault((rates or {}).get(name, learning_rate), []).append(parameter)
    groups = [{"params": parameters, "lr": rate} for rate, parameters in by_rate.items()]
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=fused)


def fit(
    method: TrainingMethod,
    optimizer: torch.optim.Optimizer,
    draw: Callable[[int], Sequence[Batch]],
    schedule: Schedule,
    runtime: Runtime,
    observe: Observer,
    *,
    checkpoint: Callable[[int], None],
    after_step: Callable[[int], None],
    stop: StopRequest,
    gradient_clip: float | None = None,
    converged: Callable[[int], bool] = lambda done: False,
) -> int:
    """Train ``method`` until ``schedule.last``, until it has ``converged``, or until ``stop`` is asked for.

    Args:
        draw: this process's parts of the batch of a step, as many as every other's; a function of the step alone, so
            that nothing has to be saved. Of P processes the first has the parts 0, P, 2P ..., and so on by rank.
        checkpoint: called with the steps that are done, where there is to be one.
        after_step: called with the steps that are done, after each.
        gradient_clip: the largest norm that the gradients of a step may have together.
        converged: called with the steps that are done, after each; says the same in all processes.

    Returns:
        The steps that are done. The last of them is checkpointed.
    """
    add_gradient = Gradient(method, runtime)
    processes = runtime.processes
    pending: list[list[dict[str, Tensor]]] = []  # losses that are still on the device: reading them makes it wait
    began = time.perf_counter()
    for step in range(schedule.first, schedule.last):
        parts = draw(step)
        count = len(parts) * processes.count
        pending.append([add_gradient(part, count) for part in parts])
        runtime.step(optimizer, gradient_clip)

        done = step + 1
        ends = converged(done) or done == schedule.last or stop.agreed(processes)
        saves = ends or done % schedule.checkpoint_every == 0
        if saves or done % schedule.report_every == 0:
            latest = _report(pending, done, processes, observe)
            seconds = (time.perf_counter() - began) / len(pending)
            observe(Progress(done, schedule.last, latest, seconds, runtime.memory()))
            pending = []
        if saves:
            checkpoint(done)
        after_step(done)
        if not pending:
            began = time.perf_counter()
        if ends:
            return done
    return schedule.first


class Gradient:
    """The gradient of a part of a batch, added to what the parameters have; recorded where ``runtime`` records."""

    def __init__(self, method: TrainingMethod, runtime: Runtime) -> None:
        self.method = method
        self.runtime = runtime
        self.parameters = list(method.trainable().values())
        self._recorded = runtime.recorded(lambda *tensors, parts: self._add(Batch.of(tensors), parts))

    def __call__(self, part: Batch, parts: int) -> dict[str, Tensor]:
        """The terms of the part's loss, as the share of all ``parts`` that it is."""
        return self._recorded(*part.tensors(), parts=parts) if self.runtime.records else self._add(part, parts)

    def _add(self, part: Batch, parts: int) -> dict[str, Tensor]:
        loss = self.method.loss(part)
        self.runtime.backward(loss.total / parts, self.parameters)
        return {name: value / parts for name, value in loss.terms.items()}


def _report(
    pending: Sequence[Sequence[dict[str, Tensor]]], done: int, processes: Processes, observe: Observer
) -> dict[str, float]:
    """Read the pending losses in one transfer and tell them, a step at a time; the last step's are returned."""
    names = list(pending[0][0])
    own = torch.stack([torch.stack([torch.stack([part[name] for name in names]) for part in parts]) for parts in pending])
    parts = torch.stack(processes.gather(own), dim=2).flatten(1, 2).unbind(1)  # in the order of the batch, [steps, terms] each
    values = reduce(torch.add, parts).tolist()
    for offset, row in enumerate(values):
        observe(StepCompleted(done - len(values) + offset + 1, dict(zip(names, row, strict=True))))
    return dict(zip(names, values[-1], strict=True))

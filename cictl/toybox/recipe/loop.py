"""One training loop for all components: several processes, wall-clock schedule, EMA, state that survives a stop."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cictl.files import write_atomic

_SAVE_SECONDS = 120
_REPORT_STEPS = 50
_WARM_UP_STEPS = 40
_ROUND = 8  # steps

Loss = Callable[[np.random.Generator, float], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Recipe:
    """How a component is trained.

    Attributes:
        name: of the component; its state is ``<name>.safetensors`` in the work folder.
        rates: learning rate of each module.
        minutes: of wall clock, in all; what earlier runs took counts.
        decay_from: share of the time after which the rate falls linearly to 2%.
        ema: how much of the average a step keeps; it starts lower.
    """

    name: str
    rates: Mapping[str, float]
    minutes: float
    decay_from: float = 0.66
    weight_decay: float = 0.01
    ema: float = 0.9995


@dataclass(frozen=True)
class Worker:
    """This process among those that train together."""

    work: Path
    rank: int
    count: int
    device: torch.device


def launch(function: Callable[..., None], work: Path, processes: int, *arguments: Any) -> None:
    """Run ``function(worker, *arguments)`` in ``processes`` processes of one thread each, or here on a GPU."""
    if torch.cuda.is_available():
        function(Worker(work, 0, 1, torch.device("cuda")), *arguments)
        return
    meeting = work / f".meeting-{os.getpid()}"
    torch.multiprocessing.spawn(  # type: ignore[attr-defined]
        _enter, (processes, function, work, meeting, arguments), nprocs=processes
    )
    meeting.unlink(missing_ok=True)


def _enter(
    rank: int, processes: int, function: Callable[..., None], work: Path, meeting: Path, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    function(Worker(work, rank, processes, torch.device("cpu")), *arguments)
    dist.destroy_process_group()


def train(recipe: Recipe, worker: Worker, modules: Mapping[str, nn.Module], loss: Loss) -> None:
    """Train until the time is over, going on from the state on the disk.

    Processes train each by itself and average their weights every few steps, which costs less than averaging
    gradients at each (local SGD, Stich 2019).

    Args:
        modules: what is trained; every process must begin with equal ones.
        loss: of a batch drawn from a generator, given the share of the time that is over.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(module.parameters()), "lr": recipe.rates[name]} for name, module in modules.items()
    ]
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True)
    averages = {f"{n}.{k}": v.clone() for n, module in modules.items() for k, v in module.state_dict().items()}
    step, before = _restore(worker, recipe.name, modules, averages, optimizer, parameters)
    rng = np.random.default_rng([worker.rank, step])
    torch.manual_seed(1000 * step + worker.rank)
    began = saved = time.monotonic()
    elapsed, reports = before, []
    while elapsed < recipe.minutes * 60:
        progress = elapsed / (recipe.minutes * 60)
        warmth = min(1.0, (step + 1) / _WARM_UP_STEPS)
        decay = 1.0 if progress < recipe.decay_from else max(0.02, (1 - progress) / (1 - recipe.decay_from))
        for group, rate in zip(optimizer.param_groups, recipe.rates.values(), strict=True):
            group["lr"] = rate * warmth * decay
        value, numbers = loss(rng, progress)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % _ROUND == 0:
            elapsed = _agree(parameters, before + time.monotonic() - began, worker)
            _follow(averages, modules, min(recipe.ema**_ROUND, step / (step + 20 * _ROUND)))
        reports.append({"loss": value.item(), **numbers})
        if worker.rank == 0 and step % _REPORT_STEPS == 0:
            _print(recipe, step, elapsed, reports[-_REPORT_STEPS:])
        if worker.rank == 0 and time.monotonic() - saved > _SAVE_SECONDS:
            _save(worker, recipe.name, modules, averages, optimizer, parameters, step, elapsed)
            saved = time.monotonic()
    if worker.rank == 0:
        _save(worker, recipe.name, modules, averages, optimizer, parameters, step, elapsed)


def load_average(work: Path, name: str, module: str) -> dict[str, Tensor]:
    """The averaged weights of a module of a component."""
    tensors = load_file(work / f"{name}.safetensors")
    prefix = f"average.{module}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def progress_of(work: Path, name: str) -> dict[str, float]:
    """Steps and seconds that a component was trained for."""
    with safe_open(work / f"{name}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["progress"])


@torch.no_grad()
def _agree(parameters: list[nn.Parameter], elapsed: float, worker: Worker) -> float:
    """Average weights and clocks, so that all processes go on alike and end at the same step."""
    if worker.count == 1:
        return elapsed
    flat = torch.cat([*(parameter.flatten() for parameter in parameters), torch.tensor([elapsed])])
    dist.all_reduce(flat)
    flat /= worker.count
    for parameter, mean in zip(parameters, flat[:-1].split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(mean.view_as(parameter))
    return float(flat[-1])


@torch.no_grad()
def _follow(averages: dict[str, Tensor], modules: Mapping[str, nn.Module], keep: float) -> None:
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                averages[f"{name}.{key}"].lerp_(value, 1 - keep)
            else:
                averages[f"{name}.{key}"].copy_(value)


def _print(recipe: Recipe, step: int, elapsed: float, reports: list[dict[str, float]]) -> None:
    means = "  ".join(f"{key} {np.mean([report[key] for report in reports]):.4f}" for key in reports[0])
    print(f"{recipe.name}: step {step}  {elapsed / 60:.1f}/{recipe.minutes:g} min  {means}", flush=True)


def _save(
    worker: Worker,
    name: str,
    modules: Mapping[str, nn.Module],
    averages: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    step: int,
    elapsed: float,
) -> None:
    tensors = {f"module.{n}.{k}": v for n, module in modules.items() for k, v in module.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in averages.items()}
    for index, parameter in enumerate(parameters):
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}.{index}"] = value
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    content = save(plain, {"progress": json.dumps({"step": step, "seconds": round(elapsed)})})
    write_atomic(worker.work / f"{name}.safetensors", content)


def _restore(
    worker: Worker,
    name: str,
    modules: Mapping[str, nn.Module],
    averages: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
) -> tuple[int, float]:
    path = worker.work / f"{name}.safetensors"
    if not path.exists():
        return 0, 0.0
    tensors = load_file(path)
    for n, module in modules.items():
        prefix = f"module.{n}."
        if own := {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}:  # no heads in what is packed
            module.load_state_dict(own)
    for key, average in averages.items():
        if f"average.{key}" in tensors:
            average.copy_(tensors[f"average.{key}"])
    for index, parameter in enumerate(parameters):
        if f"step.{index}" in tensors:
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{index}"].to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }
    progress = progress_of(worker.work, name)
    return int(progress["step"]), float(progress["seconds"])

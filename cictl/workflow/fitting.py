"""What a step of training costs, and with `model.memory: auto` how much of it is kept, by the memory that is free."""

from __future__ import annotations

import gc

import torch

from cictl.config import STAGES, Config, DisenBoothConfig, FinetuneConfig, MemoryMode, Stage, settings_of
from cictl.models.cost import StepCost, count_step, fastest_that_fits
from cictl.models.locate import Located
from cictl.workflow.class_pictures import prior_of


def fitting_step(
    config: Config, stage: Stage, base: Located, device: torch.device, dtype: torch.dtype
) -> tuple[MemoryMode, StepCost]:
    """What a step of a training by one process keeps, and what one part of it costs."""
    memory = choose_memory(config, stage, base, device, dtype, 1)
    return memory, _count(config, stage, base, dtype, 1, memory)


def memory_of_step(config: Config, stage: Stage, base: Located, device: torch.device, dtype: torch.dtype) -> int:
    """Bytes that a training takes on the device, counted in half the time of :func:`fitting_step`."""
    return _count(config, stage, base, dtype, 1, choose_memory(config, stage, base, device, dtype, 1), backward=False).memory


def choose_memory(
    config: Config, stage: Stage, base: Located, device: torch.device, dtype: torch.dtype, processes: int
) -> MemoryMode:
    """What a training keeps: auto counts a forward pass of our two stages on CUDA, in seconds; elsewhere everything is kept.

    Args:
        processes: how many share the batch.
    """
    if config.model.memory != "auto":
        return config.model.memory
    if device.type != "cuda" or stage not in STAGES:
        return "full"

    def needed(memory: MemoryMode) -> int:
        return _count(config, stage, base, dtype, processes, memory, backward=False).memory

    return fastest_that_fits(needed, free_memory(device))


def _count(
    config: Config,
    stage: Stage,
    base: Located,
    dtype: torch.dtype,
    processes: int,
    memory: MemoryMode,
    backward: bool = True,
) -> StepCost:
    settings = settings_of(config, stage)
    part = settings.batch_size // (settings.accumulation * processes)
    return count_step(
        base.folder,
        stage=stage,
        resolution=config.data.resolution,
        batch=part,
        dtype=dtype,
        memory=memory,
        passes=2 if isinstance(settings, DisenBoothConfig) or prior_of(settings) else 1,
        rank=settings.rank if isinstance(settings, DisenBoothConfig) else 0,
        token=isinstance(settings, FinetuneConfig) and settings.concept_learning_rate > 0,
        backward=backward,
    )


def free_memory(device: torch.device) -> int:
    """Bytes that can be had, those that this process holds in reserve among them."""
    collect_garbage(device)
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    import psutil

    return int(psutil.virtual_memory().available)


def collect_garbage(device: torch.device) -> None:
    """Let a GPU have the memory of models that are no longer needed: a layer that is called in a way of ours holds itself."""
    if device.type != "cpu":
        gc.collect()

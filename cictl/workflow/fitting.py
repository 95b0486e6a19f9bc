"""What a step of training costs, and with `model.memory: auto` how much of it is kept, by the memory that is free."""

from __future__ import annotations

from functools import cache

import torch

from cictl.config import Config, DisenBoothConfig, MemoryMode, Stage, settings_of
from cictl.models.cost import StepCost, count_step, fastest_that_fits
from cictl.models.locate import Located
from cictl.workflow.class_pictures import prior_of
from cictl.workflow.stage import STAGES


def fitting_step(
    config: Config, stage: Stage, base: Located, device: torch.device, dtype: torch.dtype, processes: int = 1
) -> tuple[MemoryMode, StepCost]:
    """What a step of a training keeps, and what one part of it costs; auto keeps everything off CUDA, and for other methods.

    Args:
        processes: how many share the batch.
    """
    settings = settings_of(config, stage)
    part = settings.batch_size // (settings.accumulation * processes)
    passes = 2 if isinstance(settings, DisenBoothConfig) or prior_of(settings) else 1
    rank = settings.rank if isinstance(settings, DisenBoothConfig) else 0

    @cache
    def cost(memory: MemoryMode) -> StepCost:
        return count_step(
            base.folder, stage=stage, resolution=config.data.resolution, batch=part, dtype=dtype, memory=memory, passes=passes,
            rank=rank,
        )  # fmt: skip

    memory = config.model.memory
    if memory == "auto":
        fits = device.type == "cuda" and stage in STAGES
        memory = fastest_that_fits(lambda mode: cost(mode).memory, free_memory(device)) if fits else "full"
    return memory, cost(memory)


def choose_memory(
    config: Config, stage: Stage, base: Located, device: torch.device, dtype: torch.dtype, processes: int
) -> MemoryMode:
    """What a training keeps; auto asks :func:`fitting_step` where it can, which takes seconds, and else keeps everything."""
    if config.model.memory != "auto":
        return config.model.memory
    if device.type != "cuda" or stage not in STAGES:
        return "full"
    return fitting_step(config, stage, base, device, dtype, processes)[0]


def free_memory(device: torch.device) -> int:
    """Bytes that can be had, those that this process holds in reserve among them."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    import psutil

    return int(psutil.virtual_memory().available)

"""Ways in which a GPU can compute a step: what each takes, and whether it computes what the library's does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cictl.config import FinetuneConfig, MemoryMode
from cictl.config.schema import ModelConfig

_WARM, _BLOCK, _BLOCKS = 4, 20, 3  # steps, and how many blocks of them, of which the median is told


@dataclass(frozen=True)
class Way:
    """``model.cuda_graph``, ``model.fused``, ``model.deterministic`` and ``model.memory``; the stage that is trained so.

    Attributes:
        compiled: whether ``torch.compile`` has the UNet, for which there is no setting.
    """

    cuda_graph: bool = True
    fused: bool = True
    deterministic: bool = False
    compiled: bool = False
    memory: MemoryMode = "full"
    stage: str = "invert"


WAYS = {
    "the library's kernels, launched": Way(cuda_graph=False, fused=False),
    "the library's kernels, recorded": Way(fused=False),
    "the library's kernels, compiled, recorded": Way(fused=False, compiled=True),
    "fused, launched": Way(cuda_graph=False),
    "fused, recorded": Way(),
    "the same, compiled": Way(compiled=True),
    "the same, deterministic": Way(deterministic=True),
    "the same, model.memory low": Way(memory="low"),
    "the same, model.memory lowest": Way(memory="lowest"),
    "stage 2, fused, recorded": Way(stage="finetune"),
}


def run(work: Path, resolution: int, batch: int, device: str, name: str) -> None:
    """Print a row for a way: a step's time, the peak of the memory, and whether a gradient has the same bits three times."""
    import torch

    from benchmarks.optimisations.parts import stage_1
    from cictl.data.draws import Batch, draw_batch
    from cictl.engine.runtime import Runtime
    from cictl.engine.training import Gradient, adamw
    from cictl.methods.disentangled_finetuning import DisentangledFinetuning
    from cictl.models.checkpointing import set_memory

    way = WAYS[name]
    settings = ModelConfig(device=device, cuda_graph=way.cuda_graph, fused=way.fused, deterministic=way.deterministic)
    runtime = Runtime.configured(settings)
    first = stage_1(work, resolution, runtime)
    method: Any = first
    if way.stage == "finetune":
        method = DisentangledFinetuning(first.model, first.tokens, first.photographs, FinetuneConfig())
    set_memory(first.model.unet, way.memory)
    if way.compiled:
        first.model.unet.compile()

    def draw(step: int) -> Batch:
        return draw_batch(
            first.photographs, seed=0, stage=way.stage, step=step, samples=range(batch), batch_size=batch, timesteps=1000
        )  # fmt: skip

    def train(steps: range) -> float:
        """Milliseconds a step."""
        began = time.perf_counter()
        for step in steps:
            gradient(draw(step), 1)
            runtime.step(optimizer)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / len(steps) * 1e3

    parameters = list(method.trainable().values())
    found = [torch.autograd.grad(method.loss(draw(0)).total, parameters) for _ in range(3)]
    same = all(torch.equal(one, other) for again in found[1:] for one, other in zip(again, found[0], strict=True))
    del found
    if runtime.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    gradient, optimizer = Gradient(method, runtime), adamw(method, learning_rate=1e-4, weight_decay=0.01)
    train(range(_WARM))
    taken = median(train(range(start, start + _BLOCK)) for start in range(_WARM, _WARM + _BLOCKS * _BLOCK, _BLOCK))
    print(f"| {name} | {taken:.1f} | {runtime.memory().peak / 2**30:.2f} GiB | {'yes' if same else 'no'} |", flush=True)

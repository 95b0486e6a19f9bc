"""What is run in a process of its own, with the models of the real size in a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cictl.config import InvertConfig, MemoryMode

_PHOTOGRAPHS = 4
_REPEATS = 3
_STEPS = 10  # of a picture


def encode_texts(work: Path) -> None:
    """Print a row for each way to encode the texts of stage 1."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    method = stage_1(work, 64)
    model, tower = method.model, method.model.text_encoder
    whole = model.tokenize([" ".join(method.tokens.auxiliary_names(index)) for index in range(_PHOTOGRAPHS)])
    rows = torch.tensor([0, 1, 2, 2])

    def eq_2(ids: Any) -> Any:
        return model.text_embedding(ids, method.projection)

    kinds: dict[str, Callable[[], Any]] = {
        f"Eq. 2, {len(whole)} prompts, all 77 positions": lambda: eq_2(whole),
        f"Eq. 2, cut behind the end, {method.auxiliary_ids.shape[1]} positions": lambda: eq_2(method.auxiliary_ids),
        "Eq. 1, a batch of 4 with a prompt twice, each encoded": lambda: tower(method.prompt_ids[rows]).last_hidden_state,
        "Eq. 1, the same, a prompt once": lambda: model.encode_rows(method.prompt_ids, rows),
    }
    for kind, encode in kinds.items():
        with FlopCounterMode(display=False) as forward:
            loss = encode().square().mean()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        began = time.process_time()
        for _ in range(_REPEATS):
            encode().square().mean().backward()
        seconds = (time.process_time() - began) / _REPEATS
        flops = [counter.get_total_flops() / 1e9 for counter in (forward, backward)]
        print(f"| {kind} | {flops[0]:.1f} | {flops[1]:.1f} | {seconds:.2f} |", flush=True)


def convolve(work: Path, resolution: int) -> None:
    """Print a row for a step of stage 1 with the library's convolutions alone, and with products of matrices; they take turns."""
    from statistics import median

    from cictl.data.draws import draw_batch
    from cictl.models.convolutions import multiply_at_few_positions

    method = stage_1(work, resolution)
    unet = method.model.unet
    batch = draw_batch(method.photographs, seed=0, stage="invert", step=0, samples=range(1), batch_size=1, timesteps=1000)
    method.loss(batch).total.backward()
    seconds: dict[str, list[float]] = {"convolutions": [], "products": []}
    for _ in range(_REPEATS):
        for name in multiply_at_few_positions(unet):
            del unet.get_submodule(name).forward  # that of its class is left
        for kind, taken in seconds.items():
            if kind == "products":
                multiply_at_few_positions(unet)
            began = time.process_time()
            method.loss(batch).total.backward()
            taken.append(time.process_time() - began)
    print(f"| {resolution} px | {' | '.join(f'{median(taken):.2f}' for taken in seconds.values())} |", flush=True)


def denoise(work: Path, resolution: int) -> None:
    """Print a row for the steps of a guided picture whose prompts are read at every step, and once for all; they take turns."""
    from statistics import median

    import torch

    method = stage_1(work, resolution)
    model = method.model
    noisy = torch.randn(2, *method.photographs.mean.shape[1:])
    seconds: dict[str, list[float]] = {"every": [], "once": []}
    with torch.no_grad():
        context = model.encode_text(model.tokenize(["", "a photo"]))
        for _ in range(1 + _REPEATS):
            for kind, taken in seconds.items():
                began = time.process_time()
                given = model.read(context) if kind == "once" else context
                for timestep in torch.linspace(999, 0, _STEPS).long():
                    model.predict(noisy, timestep, given)
                taken.append((time.process_time() - began) / _STEPS)
    print(f"| {resolution} px | {' | '.join(f'{median(taken[1:]):.2f}' for taken in seconds.values())} |", flush=True)


def train_step(work: Path, memory: MemoryMode, resolution: int) -> None:
    """Print a row for a step of stage 1."""
    from cictl.data.draws import draw_batch
    from cictl.models.checkpointing import set_memory

    method = stage_1(work, resolution)
    set_memory(method.model.unet, memory)
    batch = draw_batch(method.photographs, seed=0, stage="invert", step=0, samples=range(1), batch_size=1, timesteps=1000)
    began = time.process_time()
    with _Peak() as peak:
        method.loss(batch).total.backward()
    print(f"| {memory} | {peak.bytes / 2**30:.2f} GiB | {time.process_time() - began:.0f} |", flush=True)


def stage_1(work: Path, resolution: int) -> Any:
    """The method on random photographs, without VAE and CLIP's image tower; on a CPU in fp32."""
    import torch

    from cictl.data.draws import EncodedPhotographs
    from cictl.methods.contrastive_inversion import ContrastiveInversion
    from cictl.models.clip import text_projection
    from cictl.models.concept_tokens import initial_tokens
    from cictl.models.locate import locate_base, locate_clip
    from cictl.models.stable_diffusion import StableDiffusion

    torch.manual_seed(0)
    model = StableDiffusion.load(locate_base(str(work / "sd15")), torch.device("cpu"), torch.float32)
    side, keys = resolution // model.reduction, tuple(f"{index:064x}" for index in range(_PHOTOGRAPHS))
    model.vae = None
    shape = (len(keys), 4, side, side)
    mean, embeddings = torch.randn(shape), torch.randn(len(keys), 768)
    photographs = EncodedPhotographs(keys, mean, torch.full_like(mean, 0.1), embeddings)
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="teapot", vectors=1, start="auto", keys=keys, auxiliary_vectors=4,
        auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    projection = text_projection(locate_clip(str(work / "clip")))
    return ContrastiveInversion(model, tokens, photographs, projection, InvertConfig())


class _Peak:
    """The most resident memory beyond what there was, looked at a hundred times a second."""

    def __enter__(self) -> _Peak:
        self.bytes = 0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        import psutil

        process = psutil.Process()
        before = process.memory_info().rss
        while not self._done.wait(0.01):
            self.bytes = max(self.bytes, process.memory_info().rss - before)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._watcher.join()

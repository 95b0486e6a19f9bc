"""Where a drawn picture, and a photograph, attend to the tokens of prompts: Fig. 4 of arXiv 2508.07755."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from cictl.data.draws import randomness
from cictl.engine.sampling import sample
from cictl.functional.attention import mean_over_layers, token_map
from cictl.models.attention_processors import AttentionRecorder
from cictl.models.stable_diffusion import StableDiffusion

# Photographs are noised to these shares of the schedule's timesteps, one after another.
NOISE_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
# Layers whose side is at least this share of the latents': in Stable Diffusion 1.x all but the one in the middle.
SMALLEST_SIDE = 1 / 4


@dataclass(frozen=True)
class Probe:
    """A token in a prompt that is asked about.

    Attributes:
        text: the prompt as the tokenizer reads it.
        names: the stored tokens of the token's vectors.
    """

    text: str
    names: Sequence[str]


def maps_of_picture(
    model: StableDiffusion,
    context: Tensor,
    negative: Tensor,
    seed: int,
    probes: Sequence[Probe],
    *,
    size: tuple[int, int],
    steps: int,
    guidance: float,
    sampler: str,
    after_step: Callable[[int], None] = lambda step: None,
) -> tuple[Tensor, Tensor]:
    """Draw a picture, as :func:`sample` does, and note what its positions attend to: of the half with the prompt, at every step.

    The probes of the picture's prompt are what it was drawn by; others are what it would have attended to.

    Args:
        context, negative: the encoded prompt, and what guidance leads away from, [1, L, D] each.

    Returns:
        The latents [1, C, h, w], and a heat map for each probe, [P, h, w], in fp32 on the CPU.
    """
    with _recording(model, probes, slice(-1, None)) as recorder:
        latents = sample(
            model, context, negative, [seed], size=size, steps=steps, guidance=guidance, sampler=sampler, after_step=after_step
        )
    return latents, _heat(model, recorder, probes, latents)


@torch.no_grad()
def maps_of_photograph(model: StableDiffusion, latents: Tensor, seed: int, key: str, probes: Sequence[Probe]) -> Tensor:
    """What the positions of a noised photograph attend to, the mean over :data:`NOISE_LEVELS`.

    Args:
        latents: the mean of the VAE's posterior, [1, C, h, w].
        seed, key: what the noise depends on: that of the workspace, and the photograph's.
        probes: tokens of one and the same prompt, with which the UNet is called.

    Returns:
        A heat map for each probe, [P, h, w], in fp32 on the CPU.
    """
    [context] = {probe.text: None for probe in probes}
    encoded = model.encode_text(model.tokenize([context]))
    with _recording(model, probes, slice(None)) as recorder:
        for level in NOISE_LEVELS:
            timesteps = torch.tensor([int(level * model.timesteps)], device=latents.device)
            noise = torch.randn(latents.shape, generator=randomness(seed, "attention", key, level)).to(latents.device)
            model.predict(model.add_noise(latents, noise, timesteps), timesteps, encoded)
    return _heat(model, recorder, probes, latents)


@contextmanager
def _recording(model: StableDiffusion, probes: Sequence[Probe], rows: slice) -> Iterator[AttentionRecorder]:
    with torch.no_grad():
        contexts = model.encode_text(model.tokenize([probe.text for probe in probes]))
    recorder = AttentionRecorder(model.unet, contexts, rows)
    recorder.inject()
    try:
        yield recorder
    finally:
        recorder.eject()


def _heat(model: StableDiffusion, recorder: AttentionRecorder, probes: Sequence[Probe], latents: Tensor) -> Tensor:
    height, width = latents.shape[-2:]
    least = ceil(min(height, width) * SMALLEST_SIDE)
    layers = [layer for layer in recorder.maps(height, width) if min(layer.shape[-2:]) >= least]
    heat = []
    for index, probe in enumerate(probes):
        maps = mean_over_layers([layer[index] for layer in layers], (height, width))
        heat.append(token_map(maps, _positions(model, probe)))
    return torch.stack(heat).cpu()


def _positions(model: StableDiffusion, probe: Probe) -> list[int]:
    known = torch.tensor(model.tokenizer.convert_tokens_to_ids(list(probe.names)), device=model.device)
    return torch.isin(model.tokenize([probe.text])[0], known).nonzero()[:, 0].tolist()

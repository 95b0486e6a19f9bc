"""The pass through the UNet that every loss begins with."""

from __future__ import annotations

from torch import Tensor

from cictl.data.draws import Batch
from cictl.models.attention_processors import DisentangledContext
from cictl.models.stable_diffusion import StableDiffusion


def denoise(model: StableDiffusion, batch: Batch, context: Tensor | DisentangledContext) -> tuple[Tensor, Tensor]:
    """What was to be predicted for ``batch``, noise or velocity, and what the UNet predicts, [B, C, H, W] each.

    Args:
        context: the encoded prompt of each sample, [B, L, D], or of all of them, [1, L, D]; or what Eq. 3 takes in its place.
    """
    noisy = model.add_noise(batch.latents, batch.noise, batch.timesteps)
    target = model.target(batch.latents, batch.noise, batch.timesteps)
    if isinstance(context, Tensor):
        context = context.expand(len(noisy), -1, -1)
    return target, model.predict(noisy, batch.timesteps, context)

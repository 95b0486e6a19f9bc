"""The pass through the UNet that most losses begin with."""

from __future__ import annotations

from torch import Tensor

from cictl.data.draws import Batch
from cictl.models.stable_diffusion import StableDiffusion


def denoise(model: StableDiffusion, batch: Batch, context: Tensor) -> tuple[Tensor, Tensor]:
    """What was to be predicted for ``batch``, noise or velocity, and what the UNet predicts, [B, C, H, W] each.

    Args:
        context: the encoded prompt of each sample, [B, L, D], or of all of them, [1, L, D].
    """
    noisy = model.add_noise(batch.latents, batch.noise, batch.timesteps)
    target = model.target(batch.latents, batch.noise, batch.timesteps)
    return target, model.predict(noisy, batch.timesteps, context.expand(len(noisy), -1, -1))

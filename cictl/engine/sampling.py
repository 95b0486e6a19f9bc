"""From a context to pictures: DDIM and three faster samplers, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cictl.data.draws import randomness
from cictl.engine.recorded import Recorded
from cictl.functional.guidance import classifier_free_guidance
from cictl.models.stable_diffusion import StableDiffusion

# What makes the noise schedule that the base was trained with, and what it predicts; all else is the sampler's own.
_SHARED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "steps_offset",
)  # fmt: skip


def make_scheduler(sampler: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of diffusers for the noise schedule ``config``.

    Args:
        sampler: ddim, dpm++ (DPM-Solver++ 2M), euler, or unipc.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

    kinds: dict[str, Any] = {
        "ddim": DDIMScheduler,
        "dpm++": DPMSolverMultistepScheduler,
        "euler": EulerDiscreteScheduler,
        "unipc": UniPCMultistepScheduler,
    }
    shared = {key: config[key] for key in _SHARED if key in config}
    if sampler == "ddim":
        shared |= {"clip_sample": False, "set_alpha_to_one": False}
    return kinds[sampler].from_config(shared)


def initial_noise(seed: int, shape: tuple[int, int, int]) -> Tensor:
    """The noise that the picture of this seed starts from, [C, h, w]; the same in whatever batch it is made."""
    return torch.randn(shape, generator=randomness(seed, "picture"))


@torch.no_grad()
def sample(
    model: StableDiffusion,
    context: Tensor,
    negative: Tensor,
    seeds: Sequence[int],
    *,
    size: tuple[int, int],
    steps: int = 50,
    guidance: float = 5.0,
    sampler: str = "ddim",
    record: bool = False,
    after_step: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Latents of a picture for each seed, with classifier-free guidance.

    Args:
        context: encoding of the prompt of each picture, [B, L, D].
        negative: encoding of the negative prompt, or of whatever guidance leads away from, [1, L, D].
        seeds: B seeds.
        size: width and height, in pixels.
        record: whether the UNet's work is recorded on the GPU and replayed at every step.
        after_step: called with the number of denoising steps that are done.

    Returns:
        [B, C, h, w] in fp32.
    """
    scheduler = make_scheduler(sampler, model.scheduler_config)
    scheduler.set_timesteps(steps, device=model.device)
    noise = torch.stack([initial_noise(seed, model.latent_shape(*size)) for seed in seeds])
    latents = noise.to(model.device) * scheduler.init_noise_sigma
    guided = guidance != 1
    read = model.read(torch.cat([negative.expand_as(context), context]) if guided else context)
    predict = Recorded(lambda noisy, time: {"prediction": model.predict(noisy, time, read).float()}, record=record)
    for done, timestep in enumerate(scheduler.timesteps, 1):
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = predict(torch.cat([scaled, scaled]) if guided else scaled, timestep)["prediction"]
        if guided:
            unconditional, conditional = prediction.chunk(2)
            prediction = classifier_free_guidance(unconditional, conditional, guidance)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
        after_step(done)
    return latents

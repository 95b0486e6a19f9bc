"""Component ``unet``: the denoiser, on the contexts of the text encoder that has learned to read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cictl.functional.losses import diffuse, prediction_target
from cictl.toybox.recipe.data import load_pool
from cictl.toybox.recipe.loop import Recipe, Worker, train
from cictl.toybox.recipe.networks import make_scheduler, make_unet
from cictl.toybox.recipe.text import load_tokenizer, tokenize, trained_text_encoder
from cictl.toybox.recipe.vae import load_latents
from cictl.toybox.world.captions import caption

BATCH = 16  # a process: small, since time buys few steps
_EMPTY = 0.1  # share of captions left out, for classifier-free guidance
_SNR_CAP = 5.0


def train_unet(worker: Worker, minutes: float, compiled: bool = True) -> None:
    """Predict the velocity of noisy latents from fresh captions.

    The loss of each sample weighs min(snr + 1, 5) / (snr + 1): Hang et al. 2023's min-SNR for velocity.
    """
    scenes, _, _ = load_pool(worker.work)
    latents = load_latents(worker.work)
    tokenizer = load_tokenizer(worker.work / "tokenizer")
    schedule = make_scheduler().alphas_cumprod.to(worker.device)
    torch.manual_seed(0)
    unet = make_unet().to(worker.device, memory_format=torch.channels_last)
    encoder = trained_text_encoder(worker.work, tokenizer).to(worker.device)
    predict = torch.compile(unet) if compiled else unet

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(latents), BATCH)
        clean = latents[chosen].float().to(worker.device)
        clean = clean.contiguous(memory_format=torch.channels_last)
        captions = ["" if rng.random() < _EMPTY else caption(scenes[index], rng) for index in chosen]
        with torch.no_grad():
            context = encoder(input_ids=tokenize(tokenizer, captions).to(worker.device)).last_hidden_state
        noise = torch.randn_like(clean)
        timesteps = torch.randint(len(schedule), (BATCH,), device=worker.device)
        alphas = schedule[timesteps]
        velocity = predict(diffuse(clean, noise, alphas), timesteps, context).sample
        error = (velocity - prediction_target(clean, noise, alphas, "v_prediction")).square().mean((1, 2, 3))
        inverse_weight = 1 / (1 - alphas)  # snr + 1
        weight = inverse_weight.clamp(max=_SNR_CAP) / inverse_weight
        return (weight * error).mean(), {"error": error.mean().item()}

    train(Recipe("unet", {"unet": 1e-3}, minutes), worker, {"unet": unet}, loss)

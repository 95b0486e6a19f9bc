"""Component ``vae``: the autoencoder, and the latents of the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor

from cictl.files import write_atomic
from cictl.toybox.recipe.data import load_pool
from cictl.toybox.recipe.loop import Recipe, Worker, load_average, train
from cictl.toybox.recipe.networks import LATENT_CHANNELS, make_vae

_CROP = 32  # pixels: learning begins on crops, which are four times cheaper
_WHOLE_FROM = 0.75  # share of the time after which it goes on with whole pictures
_KL = 2e-4


def train_vae(worker: Worker, minutes: float) -> None:
    """Train the VAE on the pool: L1 and L2 of colours and edges, heavier on the thing; a little KL."""
    _, pictures, masks = load_pool(worker.work)
    torch.manual_seed(0)
    vae = make_vae().to(worker.device, memory_format=torch.channels_last)

    def loss(rng: np.random.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        whole = progress > _WHOLE_FROM
        chosen = rng.integers(0, len(pictures), 4 if whole else 16)
        x, thing = to_pixels(pictures[chosen], worker.device), torch.from_numpy(masks[chosen]).float().unsqueeze(1)
        thing = thing.to(worker.device)
        if rng.random() < 0.5:
            x, thing = x.flip(-1), thing.flip(-1)
        if not whole:
            top, left = (4 * int(k) for k in rng.integers(0, (x.shape[-1] - _CROP) // 4 + 1, 2))
            x, thing = (t[..., top : top + _CROP, left : left + _CROP] for t in (x, thing))
        posterior = vae.encode(x.contiguous(memory_format=torch.channels_last)).latent_dist
        error = x - vae.decode(posterior.sample()).sample
        hue = error - error.mean(1, keepdim=True)
        weight = 0.6 + 1.8 * thing
        reconstruction = (weight * (error.abs() + 2 * error**2 + 2 * hue**2)).mean()
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        blur = F.avg_pool2d(error, 4).abs().mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        psnr = 10 * np.log10(4 / error.detach().square().mean().item())
        return reconstruction + 0.5 * edges + 0.5 * blur + _KL * kl, {"dB": float(psnr), "kl": kl.item()}

    recipe = Recipe("vae", {"vae": 2e-3}, minutes, decay_from=0.3, weight_decay=1e-4, ema=0.995)
    train(recipe, worker, {"vae": vae}, loss)


@torch.no_grad()
def finished_vae(work: Path) -> Any:
    """The averaged VAE, with its latent channels shifted and scaled to mean 0 and std 1 (inside its own convs)."""
    vae = make_vae()
    vae.load_state_dict(load_average(work, "vae", "vae"))
    vae.eval().requires_grad_(False)
    _, pictures, _ = load_pool(work)
    means = torch.cat([vae.encode(to_pixels(part)).latent_dist.mean for part in np.array_split(pictures[:512], 16)])
    shift, scale = means.mean((0, 2, 3)), means.std((0, 2, 3))
    channels = LATENT_CHANNELS
    vae.quant_conv.weight[:channels] /= scale.view(-1, 1, 1, 1)
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - shift) / scale
    vae.quant_conv.bias[channels:] -= 2 * scale.log()
    vae.post_quant_conv.bias += (vae.post_quant_conv.weight[..., 0, 0] @ shift.unsqueeze(1)).squeeze(1)
    vae.post_quant_conv.weight *= scale.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)
    return vae


@torch.no_grad()
def write_latents(worker: Worker) -> None:
    """Latents of this process's share of the pool, [n, 8, 16, 16], in fp16."""
    vae = finished_vae(worker.work).to(worker.device, memory_format=torch.channels_last)
    _, pictures, _ = load_pool(worker.work)
    share = np.array_split(pictures, worker.count)[worker.rank]
    parts = []
    for number, part in enumerate(np.array_split(share, max(1, len(share) // 64)), 1):
        x = to_pixels(part, worker.device).contiguous(memory_format=torch.channels_last)
        parts.append(vae.encode(x).latent_dist.mean.half().cpu())
        if worker.rank == 0 and number % 50 == 0:
            print(f"latents: {number * 64}/{len(share)} pictures", flush=True)
    content = save({"latents": torch.cat(parts).contiguous()})
    write_atomic(worker.work / f"latents-{worker.rank}-of-{worker.count}.safetensors", content)


def load_latents(work: Path) -> Tensor:
    """What :func:`write_latents` wrote, in the order of the pool."""
    files = sorted(work.glob("latents-*-of-*.safetensors"))
    return torch.cat([load_file(file)["latents"] for file in files])


def to_pixels(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """[n, H, W, 3] of bytes to [n, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

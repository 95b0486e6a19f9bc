"""Component ``evaluate``: what the judge reads in generated pictures, beside its own ceilings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cictl.data.png import Row, sheet, write_png
from cictl.engine.sampling import sample
from cictl.models.clip import text_projection
from cictl.models.locate import Located
from cictl.models.stable_diffusion import StableDiffusion
from cictl.toybox.recipe.clip import retrieval
from cictl.toybox.recipe.judge import accuracy, held_out_pixels, trained_judge
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.world.captions import caption

PROMPTS = (
    "a photo of a red cube on a beach", "a photo of a blue and white striped ball in the snow",
    "a photo of a yellow star at night", "a photo of a green and white checkered mug in a room",
    "a photo of an orange teapot in the city", "a photo of a purple and yellow dotted bottle in a forest",
    "a photo of a pink heart in front of a brick wall", "a photo of a cyan ring in the water",
    "a photo of a red and white dotted mushroom on the grass", "a photo of a black cone in the desert",
    "a sketch of a teapot", "a sketch of a striped mug on a beach", "a cartoon of a red star in the city",
    "a photo of a cube-shaped red striped teapot", "a photo of a red cube on the grass next to a small blue ball",
    "a photo of a mug",
)  # fmt: skip


def evaluate(work: Path, folder: Path, count: int, steps: int, guidance: float) -> None:
    """Print the judge's accuracy on renders, on reconstructions and on ``count`` generated pictures."""
    judge = trained_judge(work)
    model = StableDiffusion.load(Located("toybox", folder, ""), torch.device("cpu"), torch.float32)
    scenes, real = held_out_pixels(count)
    print(f"judge on {count} renders:         {accuracy(judge, real, scenes)}")
    with torch.no_grad():
        decoded = torch.cat([model.vae.decode(model.vae.encode(part).latent_dist.mean).sample for part in real.split(25)])
    decibel = 10 * torch.log10(4 / (decoded.clamp(-1, 1) - real).square().mean()).item()
    print(f"judge on reconstructions:        {accuracy(judge, decoded.clamp(-1, 1), scenes)}  ({decibel:.2f} dB)")
    rng = np.random.default_rng(0)
    made = draw(model, [caption(scene, rng, full=True) for scene in scenes], steps, guidance)
    print(f"judge on generated, {steps} steps, guidance {guidance:g}: {accuracy(judge, to_pixels(made), scenes)}")
    pictures = draw(model, [prompt for prompt in PROMPTS for _ in range(3)], steps, guidance)
    rows = [Row("", list(pictures[start : start + 12])) for start in range(0, len(pictures), 12)]
    write_png(work / "sheet.png", sheet(rows, tile=128))
    clip = Located("toybox", folder / "clip", "")
    from transformers import CLIPVisionModelWithProjection

    tower = CLIPVisionModelWithProjection.from_pretrained(clip.folder, dtype=torch.float32).eval()
    found = retrieval(tower, text_projection(clip), model.text_encoder, model.tokenizer)
    print(f"CLIP: the right caption among 64: {found:.3f}")


def draw(model: StableDiffusion, prompts: list[str], steps: int, guidance: float) -> np.ndarray:
    """A picture for each prompt, [n, 64, 64, 3] of bytes."""
    made = []
    with torch.no_grad():
        negative = model.encode_text(model.tokenize([""]))
        for start in range(0, len(prompts), 25):
            part = prompts[start : start + 25]
            context: Tensor = model.encode_text(model.tokenize(part))
            seeds = list(range(start, start + len(part)))
            latents = sample(model, context, negative, seeds, size=(64, 64), steps=steps, guidance=guidance)
            made.append(model.decode(latents))
    return np.concatenate(made)

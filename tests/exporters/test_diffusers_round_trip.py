"""The exported files, read by diffusers, give cictl's own picture."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from cictl.engine.sampling import initial_noise
from cictl.workflow import export, generate
from tests.support import silent


def test_diffusers_draws_the_same_picture_from_the_exported_files(trained, base, tmp_path):
    export.run(trained, silent, out=tmp_path)
    outcome = generate.run(
        trained,
        ["a cube shaped S* in the snow"],
        silent,
        out=tmp_path,
        overrides={"generate.count": 1, "seed": 3, "generate.steps": 5},
    )
    ours = np.asarray(Image.open(tmp_path / outcome.pictures[0]["path"].rpartition("/")[2])).astype(int)

    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_textual_inversion(str(tmp_path / "embeddings" / "my-teapot.safetensors"), token="<my-teapot>")
    weights = dict(pipeline.unet.named_parameters())
    by_name = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}.diff": name for name in weights}
    diffs = load_file(tmp_path / "loras" / "my-teapot.safetensors")
    noise = initial_noise(3, (4, 16, 16)).unsqueeze(0)

    def draw(strength: float) -> np.ndarray:
        with torch.no_grad():
            for key, diff in diffs.items():
                weights[by_name[key]] += strength * diff
        picture = pipeline(
            "a cube shaped <my-teapot> in the snow",
            latents=noise.clone(),
            num_inference_steps=5,
            guidance_scale=5.0,
            height=64,
            width=64,
        ).images[0]
        return np.asarray(picture).astype(int)

    assert np.abs(draw(1.0) - ours).max() <= 1
    assert np.abs(draw(100.0) - ours).max() > 1  # the differences matter

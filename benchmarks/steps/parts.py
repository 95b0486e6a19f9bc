"""``python -m benchmarks.steps.parts``: the floating-point operations of each part of a step, counted on shapes alone.

Stable Diffusion 1.5 and CLIP ViT-L/14 as their configurations say, without weights; in seconds, on any machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.side_by_side.gate import flop_counter

_LENGTH = 77  # tokens of a prompt


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps.parts", description=__doc__)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    print(f"{given.resolution} px, batch {given.batch}:\n\n| part | GFLOP |\n|---|---|")
    for part, flops in count_parts(given.resolution, given.batch).items():
        print(f"| {part} | {flops / 1e9:,.0f} |")


def count_parts(resolution: int, batch: int) -> dict[str, int]:
    """The operations of each part, forward and backward apart, a multiplication and an addition being two."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        unet, vae, text, vision = _networks()
        pictures = torch.empty(batch, 3, resolution, resolution)
        latents, times = torch.empty(batch, 4, resolution // 8, resolution // 8), torch.zeros(batch, dtype=torch.long)
        context = torch.empty(batch, _LENGTH, text.config.hidden_size, requires_grad=True)
        ids, small = torch.zeros(batch, _LENGTH, dtype=torch.long), torch.empty(batch, 3, 224, 224)
        text.get_input_embeddings().weight.requires_grad_(True)
        encode, encode_back = _count(lambda: text(input_ids=ids).last_hidden_state)
        predict, predict_back = _count(lambda: unet(latents, times, context).sample)
        for name, weight in unet.named_parameters():
            weight.requires_grad_(name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")))
        _, tune_back = _count(lambda: unet(latents, times, context.detach()).sample)
        with torch.no_grad():
            parts = {
                "VAE, encoding the photographs": _count(lambda: vae.encode(pictures).latent_dist.mean)[0],
                "CLIP's image tower": _count(lambda: vision(pixel_values=small).image_embeds)[0],
            }
    return {
        **parts,
        "text encoder, forward": encode,
        "text encoder, backward to the tokens": encode_back,
        "UNet, forward": predict,
        "UNet, backward to the context (stage 1)": predict_back,
        "UNet, backward to K and V (stage 2)": tune_back,
    }


def _count(forward: Callable[[], Tensor]) -> tuple[int, int]:
    """Of ``forward``, and of the way back from it where there is one."""
    with flop_counter() as counter:
        result = forward()
    before = counter.get_total_flops()
    if not result.requires_grad:
        return before, 0
    with flop_counter() as counter:
        result.sum().backward()
    return before, counter.get_total_flops()


def _networks() -> tuple[Any, Any, Any, Any]:
    """UNet, VAE, text encoder and CLIP's image tower, frozen."""
    import json

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    from benchmarks.real_sizes.models import VIT_L_14
    from cictl.models.single_file import SD1_CONFIGS

    kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    unet, vae = (kind.from_config(kind.load_config(SD1_CONFIGS, subfolder=part)) for part, kind in kinds.items())
    text = CLIPTextModel(CLIPTextConfig(**json.loads((SD1_CONFIGS / "text_encoder" / "config.json").read_text("utf-8"))))
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_L_14))
    for network in (unet, vae, text, vision):
        network.eval().requires_grad_(False)
    return unet, vae, text, vision


if __name__ == "__main__":
    main()

"""The toybox's networks: the component classes of Stable Diffusion 1.x, a few hundred times smaller."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

IMAGE_SIZE = 64
LATENT_CHANNELS = 8
LATENT_SIZE = IMAGE_SIZE // 4
TEXT_WIDTH = 128
TEXT_LENGTH = 32  # tokens, the two marks included
PROJECTION_WIDTH = 128


def make_vae() -> Any:
    """An untrained AutoencoderKL: [B, 3, 64, 64] in [-1, 1] to and from latents [B, 8, 16, 16]."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )
    with torch.no_grad():  # start with hardly any sampling noise: reconstruction first, regularity later
        vae.quant_conv.bias[LATENT_CHANNELS:] = -5.0
        vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    return vae


def make_unet() -> Any:
    """An untrained UNet over latents [B, 8, 16, 16], cross-attending to text [B, T, 128] at 8 px and 4 px."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 96, 160),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads, as SD 1.5's config does
        norm_num_groups=8,
    )


def make_scheduler() -> Any:
    """Stable Diffusion 1.x's noise schedule, with the velocity as the thing predicted."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def text_config(vocabulary: int, start_id: int, end_id: int) -> Any:
    """The text encoder's configuration. ``end_id`` must be the tokenizer's real end mark: pooling looks for it."""
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=PROJECTION_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=start_id,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )


def make_text_encoder(vocabulary: int, start_id: int, end_id: int) -> Any:
    """An untrained CLIPTextModel: token ids [B, 32] to hidden states [B, 32, 128]."""
    return CLIPTextModel(text_config(vocabulary, start_id, end_id))


def vision_config() -> Any:
    """The configuration of the CLIP vision tower: a ViT over 8 x 8 patches of 8 px."""
    return CLIPVisionConfig(
        image_size=IMAGE_SIZE,
        patch_size=8,
        hidden_size=128,
        intermediate_size=512,
        projection_dim=PROJECTION_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
    )

"""A base model of a few thousand random weights, with exactly the parts of Stable Diffusion 1.x and CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

WIDTH = 32
LENGTH = 24
WORDS = [
    *("a", "photo", "of", "in", "the", "snow", "sketch", "picture", "style", "pose", "something", "someone"),
    *("dog", "cat", "red", "blue", "cube", "shaped", "on", "beach", "toy"),
]


def make_base(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Write a base model in diffusers layout to ``folder``, and its CLIP to ``folder/clip``."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig

    torch.manual_seed(0)
    ids = make_tokenizer(folder / "tokenizer")
    text_config = CLIPTextConfig(
        vocab_size=len(ids), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, projection_dim=WIDTH, bos_token_id=ids["<|startoftext|>"],
        eos_token_id=2, pad_token_id=ids["<|endoftext|>"],  # 2, wrong, as Stable Diffusion's own config says
    )  # fmt: skip
    vision_config = CLIPVisionConfig(
        hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, image_size=32,
        patch_size=16, projection_dim=WIDTH,
    )  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=text_config.to_dict(), vision_config=vision_config.to_dict(), projection_dim=WIDTH))
    clip.save_pretrained(folder / "clip")
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 32, "width": 32},
        "size": {"shortest_edge": 32}, "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
        "do_convert_rgb": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 3,
    }))  # fmt: skip
    text = CLIPTextModel(text_config)
    text.load_state_dict({k.removeprefix("text_model."): v for k, v in clip.text_model.state_dict().items()}, strict=False)
    text.save_pretrained(folder / "text_encoder")
    UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4,
        cross_attention_dim=WIDTH, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, sample_size=64,
    ).save_pretrained(folder / "vae")  # fmt: skip
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False,
    }))  # fmt: skip
    return folder


def make_tokenizer(folder: Path) -> dict[str, int]:
    """A CLIP tokenizer that knows single characters and :data:`WORDS`; returns its vocabulary."""
    from transformers import CLIPTokenizer

    characters = [chr(code) for code in range(33, 127)]
    tokens = [*characters, *(f"{c}</w>" for c in characters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:  # merge from the left; each merge makes a token
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = ["".join(pair), *pieces[2:]]
            if pieces[0] not in tokens:
                tokens.append(pieces[0])
    ids = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=LENGTH,
        unk_token="<|endoftext|>", pad_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return ids


def make_photographs(folder: Path, count: int = 3, size: int = 80) -> list[Path]:
    """``count`` different pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        paths.append(folder / f"photo-{index}.png")
        Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(paths[-1])
    return paths

"""Stable Diffusion 1.5 and CLIP ViT-L/14 as they lie on the disk, but with random weights: nothing is downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WHOLE = "20GB"  # larger than any part, so that each is one file, as published
_INDEX = {
    "_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"], "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False,
}  # fmt: skip
VIT_L_14 = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224,
    "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
_PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224},
    "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True, "do_convert_rgb": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3,
}  # fmt: skip


def write_models(base: Path, clip: Path) -> None:
    """Write both folders in fp16, each part of them only if it is not there; needs 4 GB of memory and of disk.

    The text encoder of ``base`` is the text tower of ``clip``, as published.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from cictl.models.single_file import SD1_CONFIGS
    from cictl.models.tokenizer import load_tokenizer

    def diffusion(kind: Any, part: str) -> Callable[[Path], None]:
        def write(folder: Path) -> None:
            model = kind.from_config(kind.load_config(SD1_CONFIGS, subfolder=part))
            model.half().save_pretrained(folder, max_shard_size=_WHOLE)

        return write

    def towers(folder: Path) -> None:
        _clip().half().save_pretrained(folder, max_shard_size=_WHOLE)
        (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))

    def text_encoder(folder: Path) -> None:
        from transformers import CLIPModel, CLIPTextModel

        whole = CLIPModel.from_pretrained(clip, dtype=torch.float16)
        model = CLIPTextModel(whole.config.text_config).half()
        model.load_state_dict(
            {name.removeprefix("text_model."): weight for name, weight in whole.text_model.state_dict().items()}
        )
        model.save_pretrained(folder)

    def scheduler(folder: Path) -> None:
        shutil.copytree(SD1_CONFIGS / "scheduler", folder)

    torch.manual_seed(0)
    _once(clip, towers)
    _once(base / "text_encoder", text_encoder)
    _once(base / "unet", diffusion(UNet2DConditionModel, "unet"))
    _once(base / "vae", diffusion(AutoencoderKL, "vae"))
    _once(base / "tokenizer", load_tokenizer(SD1_CONFIGS / "tokenizer").save_pretrained)
    _once(base / "scheduler", scheduler)
    (base / "model_index.json").write_text(json.dumps(_INDEX))


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    from cictl.models.single_file import SD1_CONFIGS

    text = json.loads((SD1_CONFIGS / "text_encoder" / "config.json").read_text("utf-8"))
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VIT_L_14, projection_dim=768))


def _once(folder: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make ``folder``, which appears only when all of it is written."""
    if folder.is_dir():
        return
    unfinished = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    write(unfinished)
    unfinished.rename(folder)

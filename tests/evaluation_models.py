"""Tiny networks that measure, of random weights, as folders: DINOv2 with its processor, CLIP with its tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make_dinov2(folder: Path) -> Path:
    """A DINOv2 of a few thousand weights, with dinov2-base's own way of preparing pictures, in small."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(1)
    Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=28, patch_size=14)
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({
        "image_processor_type": "BitImageProcessor", "crop_size": {"height": 28, "width": 28},
        "size": {"shortest_edge": 32}, "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
        "do_convert_rgb": True, "image_mean": MEAN, "image_std": STD, "resample": 3, "rescale_factor": 1 / 255,
    }))  # fmt: skip
    return folder


def make_clip(folder: Path, base: Path) -> Path:
    """The CLIP of a tiny base, with the tokenizer that goes with it."""
    shutil.copytree(base / "clip", folder)
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        if (base / "tokenizer" / name).is_file():
            shutil.copy(base / "tokenizer" / name, folder / name)
    return folder

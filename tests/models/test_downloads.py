"""The usual sizes of what is downloaded."""

from __future__ import annotations

import json

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from benchmarks.real_sizes.models import VIT_L_14
from cictl.models.downloads import USUAL
from cictl.models.single_file import SD1_CONFIGS


def size(model: nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def test_the_usual_sizes_are_those_of_the_layers():
    text = json.loads((SD1_CONFIGS / "text_encoder" / "config.json").read_text("utf-8"))
    with FakeTensorMode():
        base = [
            UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SD1_CONFIGS, subfolder="unet")),
            AutoencoderKL.from_config(AutoencoderKL.load_config(SD1_CONFIGS, subfolder="vae")),
            CLIPTextModel(CLIPTextConfig(**text)),
            CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_L_14)),  # the safety checker's
        ]
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=VIT_L_14, projection_dim=768))
    assert USUAL["model.id"][1] == pytest.approx(sum(map(size, base)), rel=1e-3)
    assert USUAL["model.clip"][1] == pytest.approx(size(clip), rel=1e-3)

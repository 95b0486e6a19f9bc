"""One of each method, on the tiny base."""

from __future__ import annotations

from typing import Any

import torch

from cictl.config import CustomDiffusionConfig, DisenBoothConfig, DreamBoothConfig, FinetuneConfig, InvertConfig
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.methods.custom_diffusion import CustomDiffusion
from cictl.methods.disenbooth import DisenBooth
from cictl.methods.disentangled_finetuning import DisentangledFinetuning
from cictl.methods.dreambooth import DreamBooth
from cictl.methods.textual_inversion import TextualInversion
from cictl.models.base_files import base_unet_weights
from cictl.models.clip import text_projection
from cictl.models.concept_tokens import initial_tokens
from tests.support import encoded

METHODS = ["invert", "finetune", "textual-inversion", "custom-diffusion", "dreambooth", "disenbooth"]
PHOTOGRAPHS = encoded(side=8)


def make(name: str, model: Any, clip: Any) -> Any:
    def tokens(auxiliary: int) -> Any:
        made = initial_tokens(
            model.tokenizer, model.text_encoder, name="my-teapot", vectors=1, start="auto", keys=PHOTOGRAPHS.keys,
            auxiliary_vectors=auxiliary, auxiliary_start="auto", seed=0,
        )  # fmt: skip
        model.add_tokens(made)
        return made

    if name == "invert":
        return ContrastiveInversion(model, tokens(2), PHOTOGRAPHS, text_projection(clip), InvertConfig())
    if name == "finetune":
        return DisentangledFinetuning(model, tokens(2), PHOTOGRAPHS, FinetuneConfig(auxiliary_context="tokens"))
    if name == "textual-inversion":
        return TextualInversion(model, tokens(0), ["a photo of S*", "a picture of S*"])
    if name == "custom-diffusion":
        masks = torch.ones(len(PHOTOGRAPHS.keys), 1, 8, 8)
        return CustomDiffusion(model, tokens(0), ["a photo of cat"] * 3, masks, "a photo of cat", CustomDiffusionConfig())
    if name == "disenbooth":
        return DisenBooth(model, PHOTOGRAPHS, "a photo of cat", DisenBoothConfig(), 0)
    return DreamBooth(model, base_unet_weights(model.located), "a photo of cat", "a photo of dog", DreamBoothConfig())

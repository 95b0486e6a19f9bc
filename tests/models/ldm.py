"""A whole model in LDM layout, to be read. What writes it is held against diffusers' own converters by the tests that read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cictl.models.ldm_names import text_tensors, unet_tensors, vae_tensors


def write_ldm(
    base: Path, file: Path, *, dtype: torch.dtype = torch.float32, layers: int = 1, extra: Mapping[str, Tensor] = {}
) -> Path:
    """The model in the folder ``base`` as one LDM checkpoint."""
    tensors = ldm_tensors(
        load_file(base / "unet" / "diffusion_pytorch_model.safetensors"),
        load_file(base / "vae" / "diffusion_pytorch_model.safetensors"),
        load_file(base / "text_encoder" / "model.safetensors"),
        layers=layers,
    )  # fmt: skip
    save_file({**{name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}, **extra}, file)
    return file


def ldm_tensors(
    unet: Mapping[str, Tensor], vae: Mapping[str, Tensor], text: Mapping[str, Tensor], layers: int
) -> dict[str, Tensor]:
    """All of a model's tensors under the names, and in the shapes, of an LDM checkpoint."""
    return {**unet_tensors(unet, layers), **vae_tensors(vae), **text_tensors(text)}

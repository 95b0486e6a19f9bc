"""A base model's files, in diffusers layout or one for all: its parts, or the weights of its UNet alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cictl.errors import ModelAccessError, lacking
from cictl.models.base_folder import weight_files
from cictl.models.locate import Located
from cictl.models.pretrained import UnreadableError, load_pretrained
from cictl.models.single_file import load_parts, load_unet_weights
from cictl.models.tokenizer import load_tokenizer

KEY_VALUE = (".attn2.to_k.weight", ".attn2.to_v.weight")
_WHOLE = "give a whole model in diffusers layout (unet/, vae/, text_encoder/, tokenizer/, scheduler/), as safetensors"


def load_networks(located: Located) -> dict[str, Any]:
    """UNet, text encoder and VAE by name, in fp32 on the CPU.

    Raises:
        ModelAccessError: one is missing, incomplete, or of another kind.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    if located.file:
        return load_parts(located.file, located.folder)
    kinds = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "vae": AutoencoderKL}
    return {part: _load_part(kind, located, part) for part, kind in kinds.items()}


def load_small(located: Located) -> tuple[Any, Any]:
    """The tokenizer and the noise schedule.

    Raises:
        ModelAccessError: one cannot be read.
    """
    from diffusers import DDIMScheduler

    folder = located.folder / "tokenizer"
    try:
        return load_tokenizer(folder), DDIMScheduler.from_pretrained(located.folder, subfolder="scheduler")
    except Exception as error:  # as in load_pretrained
        raise ModelAccessError(
            f"{located.id}: tokenizer or scheduler cannot be read ({error})", _WHOLE, slug="model-tokenizer-unreadable"
        ) from None


def base_key_values(located: Located) -> dict[str, Tensor]:
    """W_k, W_v of a base model's cross-attention in fp32, read from its file without loading the rest.

    Raises:
        ModelAccessError: the file cannot be read.
    """
    return base_unet_weights(located, lambda name: name.endswith(KEY_VALUE))


def base_unet_weights(located: Located, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    """The ``wanted`` weights of a base model's UNet by name in fp32, whatever it runs in, read from its file.

    Raises:
        ModelAccessError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if located.file:
        return load_unet_weights(located.file, located.folder, wanted)
    try:
        weights: dict[str, Tensor] = {}
        for path in weight_files(located.folder, "unet"):
            with safe_open(path, framework="pt") as file:
                weights |= {name: file.get_tensor(name).float() for name in file.keys() if wanted(name)}  # noqa: SIM118
        return weights
    except (OSError, SafetensorError) as error:
        raise _unreadable(located, "unet", str(error)) from None


def _load_part(kind: Any, located: Located, part: str) -> Any:
    of_diffusers = "diffusers" in kind.__module__
    options = {"torch_dtype": torch.float32} if of_diffusers else {"dtype": torch.float32, "ignore_mismatched_sizes": True}
    try:
        model, missing = load_pretrained(kind, located.folder, subfolder=part, **options)
    except UnreadableError as error:
        raise _unreadable(located, part, str(error)) from None
    if missing:
        raise ModelAccessError(f"{located.id}: {part} {lacking(missing)}", _WHOLE, slug="model-incomplete")
    return model


def _unreadable(located: Located, part: str, why: str) -> ModelAccessError:
    return ModelAccessError(f"{located.id}: {part} cannot be loaded ({why})", _WHOLE, slug="model-part-unreadable")

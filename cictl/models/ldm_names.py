"""The names and shapes that the LDM code gives to weights in diffusers layout, for any UNet2DConditionModel.

The opposite of diffusers' converters, by which ``single_file.py`` reads; what they make of it must be what
it was made from. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}


def unet_tensors(unet: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The UNet's tensors by their LDM names.

    Args:
        layers: its layers_per_block.

    Raises:
        ValueError: a weight has no place in the LDM layout.
    """
    with_attention = {name.split(".")[1] for name in unet if name.startswith("up_blocks.") and ".attentions." in name}
    return {f"{UNET}{_unet(name, layers, with_attention)}": tensor for name, tensor in unet.items()}


def vae_tensors(vae: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's tensors by their LDM names; its attention is written as convolutions, as the LDM code has it."""
    blocks = 1 + max(int(name.split(".")[2]) for name in vae if name.startswith("decoder.up_blocks."))
    tensors = {}
    for name, tensor in vae.items():
        new = _vae(name, blocks)
        convolved = ".attn_1." in new and new.endswith("weight") and ".norm." not in new
        tensors[f"{VAE}{new}"] = tensor[:, :, None, None] if convolved else tensor
    return tensors


def text_tensors(text: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text encoder's tensors by their LDM names, with the positions that the LDM code stores."""
    import torch

    tensors = {f"{TEXT}text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()}
    length = tensors[f"{TEXT}text_model.embeddings.position_embedding.weight"].shape[0]
    tensors[f"{TEXT}text_model.embeddings.position_ids"] = torch.arange(length).unsqueeze(0)
    return tensors


def _unet(name: str, layers: int, with_attention: set[str]) -> str:
    for ours, theirs in _UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    if match := re.match(r"mid_block\.(resnets\.0|attentions\.0|resnets\.1)\.(.*)", name):
        return f"middle_block.{_MIDDLE[match[1]]}.{_resnet(match[2])}"
    match = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
    if match is None:
        raise ValueError(name)
    way, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    if kind == "downsamplers":
        return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{(layers + 1) * block + layers}.{2 if match[2] in with_attention else 1}.{rest}"
    place = (layers + 1) * block + layer + (1 if way == "down" else 0)
    side = "input" if way == "down" else "output"
    return f"{side}_blocks.{place}.{1 if kind == 'attentions' else 0}.{_resnet(rest)}"


def _resnet(rest: str) -> str:
    part, _, end = rest.partition(".")
    return f"{_RESNET.get(part, part)}.{end}"


def _vae(name: str, blocks: int) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda match: f"up.{blocks - 1 - int(match[1])}.block.", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda match: f"up.{blocks - 1 - int(match[1])}.upsample.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)\.", lambda match: f"mid.block_{int(match[1]) + 1}.", name)
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if "mid_block.attentions.0." in name:
        name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("group_norm", "norm")
        name = re.sub(r"to_([qkv])\.", r"\1.", name).replace("to_out.0", "proj_out")
    return name

"""The attention layers of a UNet of Stable Diffusion 1.x: which there are, how one computes, and what it reads of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from cictl.errors import UsageError

# K and V of one context, [B, H, T, D] each, for each cross-attention layer: what a UNet can be given in the context's place.
KeysAndValues = Mapping[Any, tuple[Tensor, Tensor]]


class PlainAttention:
    """diffusers' ``AttnProcessor2_0`` as far as Stable Diffusion 1.x asks for it, without the division by 1 at its end."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | KeysAndValues | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention of ``hidden_states`` [B, L, C] to ``encoder_hidden_states`` [B, T, D], or to itself."""
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        key, value = self.project(attn, context) if isinstance(context, Tensor) else context[attn]
        return join_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask), attn)

    def project(self, attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of ``context`` [B, T, D] in the layer ``attn``, [B, H, T, D'] each."""
        return split_heads(attn.to_k(context), attn.heads), split_heads(attn.to_v(context), attn.heads)


def use_plain_attention(unet: Any) -> None:
    """Let ``unet``, a ``UNet2DConditionModel``, attend with :class:`PlainAttention` where that leaves nothing out."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention) and _is_plain(module):
            module.set_processor(PlainAttention())


def keys_and_values(unet: Any, context: Tensor) -> KeysAndValues:
    """K and V of ``context`` [B, T, D] in every cross-attention layer of ``unet``, as its processors have them now.

    They depend on neither the picture nor the timestep, so that a sampler needs them once.
    """
    layers = [unet.get_submodule(name) for name in cross_attention_layers(unet)]
    return {layer: layer.processor.project(layer, context) for layer in layers}


def cross_attention_layers(unet: Any) -> list[str]:
    """The names of the cross-attention layers, 16 in Stable Diffusion 1.x.

    Raises:
        ValueError: a layer has parts that Stable Diffusion 1.x lacks and that would be left out.
    """
    names = [name for name, module in unet.named_modules() if name.endswith("attn2")]
    for name in names:
        attention = unet.get_submodule(name)
        if not _is_plain(attention) or getattr(attention.to_k, "bias", None) is not None:
            raise ValueError(f"{name} is not a cross-attention layer as Stable Diffusion 1.x has it")
    return names


def choose_layers(unet: Any, beginnings: Sequence[str], key: str) -> list[str]:
    """The cross-attention layers whose names begin with one of ``beginnings``, which is one or several whole parts of a name.

    Args:
        key: of ci.yaml, for the error.

    Raises:
        UsageError: no name begins with one of them.
    """
    names = cross_attention_layers(unet)
    chosen = {one: [name for name in names if f"{name}.".startswith(f"{one}.")] for one in beginnings}
    if unknown := [one for one, found in chosen.items() if not found]:
        blocks = dict.fromkeys(name.split(".attentions.")[0] for name in names)
        raise UsageError(
            f"{key}: no cross-attention layer's name begins with {' or '.join(unknown)}",
            f"this base model has them in {', '.join(blocks)}; set {key} to some of these",
            slug="layers-unknown",
        )
    return [name for found in chosen.values() for name in found]


def split_heads(tensor: Tensor, heads: int) -> Tensor:
    """[B, L, H D] to [B, H, L, D]."""
    return tensor.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(attended: Tensor, attn: Any) -> Tensor:
    """[B, H, L, D] to what the attention layer ``attn`` gives, [B, L, C]."""
    joined: Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
    return joined


def _is_plain(attention: Any) -> bool:
    """Whether it has nothing that Stable Diffusion 1.x lacks."""
    return attention.rescale_output_factor == 1 and not (
        attention.residual_connection
        or attention.norm_cross
        or any(getattr(attention, name, None) is not None for name in ("group_norm", "spatial_norm", "norm_q", "norm_k"))
    )

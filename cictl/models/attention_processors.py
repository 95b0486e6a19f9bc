"""What is added to the cross-attention of a UNet and taken off again: tuned K, V (while training K^a, V^a too), a recorder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.errors import UsageError
from cictl.functional.attention import attention_probabilities, disentangled_attention


class DisentangledContext(NamedTuple):
    """What a UNet with an auxiliary pathway gets in place of one context.

    Attributes:
        concept: encoding of the prompt with S*, [B, T, D].
        auxiliary: encoding of the prompt with A_i*, [B, T, D].
        mask: True where the auxiliary encoding may be attended, [B, T]; None is everywhere.
    """

    concept: Tensor
    auxiliary: Tensor
    mask: Tensor | None


class KeyValue(nn.Module):
    """An attention processor with K, V of its own, in fp32, and on demand K^a, V^a.

    The base's weights are not touched. Keys and values are computed in fp32 whatever the rest runs in: the
    change that training makes to them is about as large as bf16's rounding of them.

    Args:
        auxiliary_scale: lambda of Eq. 3; None for no K^a, V^a.
        detach_first: whether the first position of a context, which is that of no word, sends no gradient back.
    """

    def __init__(self, key: Tensor, value: Tensor, *, auxiliary_scale: float | None = None, detach_first: bool = False) -> None:
        super().__init__()
        self.detach_first = detach_first
        self.key = nn.Parameter(key.detach().float().clone())
        self.value = nn.Parameter(value.detach().float().clone())
        self.auxiliary_scale = auxiliary_scale
        if auxiliary_scale is not None:
            self.auxiliary_key = nn.Parameter(self.key.detach().clone())
            self.auxiliary_value = nn.Parameter(self.value.detach().clone())

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | DisentangledContext | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Cross-attention of ``hidden_states`` [B, L, C], as diffusers' ``AttnProcessor2_0``, or Eq. 3."""
        query = split_heads(attn.to_q(hidden_states), attn.heads)

        def project(context: Tensor, weight: Tensor) -> Tensor:
            projected = F.linear(context.float(), weight)
            if self.detach_first:
                projected = torch.cat([projected[:, :1].detach(), projected[:, 1:]], dim=1)
            return split_heads(projected.to(query.dtype), attn.heads)

        if self.auxiliary_scale is not None and isinstance(encoder_hidden_states, tuple):
            concept, auxiliary, mask = encoder_hidden_states
            attended = disentangled_attention(
                query,
                project(concept, self.key),
                project(concept, self.value),
                project(auxiliary, self.auxiliary_key),
                project(auxiliary, self.auxiliary_value),
                self.auxiliary_scale,
                mask,
            )
        else:
            assert isinstance(encoder_hidden_states, Tensor)
            attended = F.scaled_dot_product_attention(
                query, project(encoder_hidden_states, self.key), project(encoder_hidden_states, self.value)
            )
        return join_heads(attended, attn)


class TunedCrossAttention:
    """K, V of every cross-attention layer of a UNet, in and out.

    Args:
        unet: a ``UNet2DConditionModel``.
        weights: W_k, W_v by name (``<layer>.to_k.weight``), in fp32: the base's to begin training, tuned ones
            to generate.
        auxiliary_scale: lambda of Eq. 3; None for no auxiliary pathway.
        detach_first: whether the first position of a context sends no gradient back (Custom Diffusion).
        train: the layers that train; None is all.
    """

    def __init__(
        self,
        unet: Any,
        weights: Mapping[str, Tensor],
        *,
        auxiliary_scale: float | None = None,
        detach_first: bool = False,
        train: Collection[str] | None = None,
    ) -> None:
        self.unet = unet
        self.layers = {
            layer: KeyValue(
                weights[f"{layer}.to_k.weight"],
                weights[f"{layer}.to_v.weight"],
                auxiliary_scale=auxiliary_scale,
                detach_first=detach_first,
            ).to(unet.device)
            for layer in cross_attention_layers(unet)
        }
        for name, layer in self.layers.items():
            layer.requires_grad_(train is None or name in train)
        self._replaced: dict[str, Any] = {}

    def inject(self) -> None:
        """Let the UNet use these K, V from now on."""
        for name, layer in self.layers.items():
            attention = self.unet.get_submodule(name)
            self._replaced[name] = attention.processor
            attention.set_processor(layer)

    def eject(self) -> None:
        """Give the UNet back exactly as it was."""
        for name, processor in self._replaced.items():
            self.unet.get_submodule(name).set_processor(processor)
        self._replaced = {}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything trainable, by name."""
        named = {f"{name}.{key}": value for name, layer in self.layers.items() for key, value in layer.named_parameters()}
        return {name: value for name, value in named.items() if value.requires_grad}

    def tensors(self) -> dict[str, Tensor]:
        """The tuned K, V by the base's own names, in fp32 on the CPU; never K^a, V^a."""
        saved = {}
        for name, layer in self.layers.items():
            saved[f"{name}.to_k.weight"] = layer.key.detach().cpu().contiguous()
            saved[f"{name}.to_v.weight"] = layer.value.detach().cpu().contiguous()
        return saved


class RecordingProcessor:
    """An attention processor that lets another do the work, and notes what the picture's positions attend to.

    Attributes:
        inner: the processor that was there, the base's or a :class:`KeyValue`; its output is passed on as it is.
        contexts: the encoded prompts whose tokens are asked about, [P, T, D].
        rows: of the batch, which are noted.
        total: the sum, over the calls so far, of the mean over rows and heads, [P, L, T] in fp32.
        calls: how many there were.
    """

    def __init__(self, inner: Any, contexts: Tensor, rows: slice) -> None:
        self.inner = inner
        self.contexts = contexts
        self.rows = rows
        self.total: Tensor | None = None
        self.calls = 0

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Cross-attention of ``hidden_states`` [B, L, C], as ``inner`` has it."""
        query = split_heads(attn.to_q(hidden_states[self.rows]), attn.heads).unsqueeze(1)  # [R, 1, H, L, D]
        if isinstance(self.inner, KeyValue):
            projected = F.linear(self.contexts.float(), self.inner.key).to(query.dtype)
        else:
            projected = attn.to_k(self.contexts)
        probabilities = attention_probabilities(query, split_heads(projected, attn.heads)).mean(dim=(0, 2))
        self.total = probabilities if self.total is None else self.total + probabilities
        self.calls += 1
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class AttentionRecorder:
    """Recorders in every cross-attention layer of a UNet, in and out. What the UNet gives stays the same, bit for bit.

    The prompts that are asked about need not be the one that the picture is drawn with: then the maps are of what
    its positions would attend to.

    Args:
        unet: a ``UNet2DConditionModel``, maybe with tuned K, V in it.
        contexts: the encoded prompts that are asked about, [P, T, D], in the UNet's precision.
        rows: of each batch, which are noted; of several, the mean.
    """

    def __init__(self, unet: Any, contexts: Tensor, rows: slice = slice(None)) -> None:
        self.unet = unet
        self.layers: dict[str, RecordingProcessor] = {}
        self._contexts = contexts
        self._rows = rows

    def inject(self) -> None:
        """Note everything from now on, beginning anew."""
        for name in cross_attention_layers(self.unet):
            attention = self.unet.get_submodule(name)
            self.layers[name] = RecordingProcessor(attention.processor, self._contexts, self._rows)
            attention.set_processor(self.layers[name])

    def eject(self) -> None:
        """Give the UNet its own processors back; the notes stay."""
        for name, layer in self.layers.items():
            self.unet.get_submodule(name).set_processor(layer.inner)

    def maps(self, height: int, width: int) -> list[Tensor]:
        """The mean over rows, heads and calls of each layer, [P, T, h, w].

        Args:
            height, width: of the latents; a layer has them halved, rounded up, as often as its length says.
        """
        found = []
        for layer in self.layers.values():
            assert layer.total is not None
            h, w = height, width
            while h * w > layer.total.shape[1]:
                h, w = -(-h // 2), -(-w // 2)
            found.append((layer.total / layer.calls).transpose(1, 2).unflatten(2, (h, w)))
        return found


def cross_attention_layers(unet: Any) -> list[str]:
    """The names of the cross-attention layers, 16 in Stable Diffusion 1.x.

    Raises:
        ValueError: a layer has parts that Stable Diffusion 1.x lacks and that would be left out.
    """
    names = [name for name, module in unet.named_modules() if name.endswith("attn2")]
    for name in names:
        attention = unet.get_submodule(name)
        if attention.norm_cross or attention.to_k.bias is not None or attention.residual_connection:
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

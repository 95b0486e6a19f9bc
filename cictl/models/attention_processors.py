"""What is added to the cross-attention of a UNet and taken off again: tuned K, V (while training K^a, V^a too), a recorder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.functional.attention import attention_probabilities, disentangled_attention
from cictl.models.attention_layers import KeysAndValues, cross_attention_layers, join_heads, keys_and_values, split_heads


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
        encoder_hidden_states: Tensor | KeysAndValues | DisentangledContext | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Cross-attention of ``hidden_states`` [B, L, C], as :class:`PlainAttention`, or Eq. 3."""
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        context = encoder_hidden_states
        if isinstance(context, DisentangledContext):
            assert self.auxiliary_scale is not None
            key, value = self.project(attn, context.concept)
            auxiliary = self._project(context.auxiliary, attn.heads, self.auxiliary_key, self.auxiliary_value)
            attended = disentangled_attention(query, key, value, *auxiliary, self.auxiliary_scale, context.mask)
        else:
            assert context is not None
            key, value = self.project(attn, context) if isinstance(context, Tensor) else context[attn]
            attended = F.scaled_dot_product_attention(query, key, value)
        return join_heads(attended, attn)

    def project(self, attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of ``context`` [B, T, D] in the layer ``attn``, [B, H, T, D'] each, in the precision of ``context``."""
        return self._project(context, attn.heads, self.key, self.value)

    def _project(self, context: Tensor, heads: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        def project(weight: Tensor) -> Tensor:
            projected = F.linear(context.float(), weight)
            if self.detach_first:
                projected = torch.cat([projected[:, :1].detach(), projected[:, 1:]], dim=1)
            return split_heads(projected.to(context.dtype), heads)

        return project(key), project(value)


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
        key: K of the encoded prompts whose tokens are asked about, [P, H, T, D].
        rows: of the batch, which are noted.
        total: the sum, over the calls so far, of the mean over rows and heads, [P, L, T] in fp32.
        calls: how many there were.
    """

    def __init__(self, inner: Any, key: Tensor, rows: slice) -> None:
        self.inner = inner
        self.key = key
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
        probabilities = attention_probabilities(query, self.key).mean(dim=(0, 2))
        self.total = probabilities if self.total is None else self.total + probabilities
        self.calls += 1
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    def project(self, attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of ``context``, as ``inner`` has them."""
        return self.inner.project(attn, context)


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
        self.layers: dict[Any, RecordingProcessor] = {}
        self._contexts = contexts
        self._rows = rows

    def inject(self) -> None:
        """Note everything from now on, beginning anew."""
        for layer, (key, _) in keys_and_values(self.unet, self._contexts).items():
            self.layers[layer] = RecordingProcessor(layer.processor, key, self._rows)
            layer.set_processor(self.layers[layer])

    def eject(self) -> None:
        """Give the UNet its own processors back; the notes stay."""
        for layer, recorder in self.layers.items():
            layer.set_processor(recorder.inner)

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

"""What replaces weights of a UNet, or is added to them, and is taken off again: a whole tuned UNet, and LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cictl.data.draws import randomness

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class TunedUNet:
    """Every weight of a UNet in another version, in fp32 whatever the rest runs in; in and out.

    At DreamBooth's learning rate the change of a weight is about as large as bf16's rounding of it, and would be lost.
    The base's own weights wait on the CPU.

    Args:
        unet: a ``UNet2DConditionModel``.
        weights: all of its weights by name: the base's to begin training, tuned ones to generate.
    """

    def __init__(self, unet: Any, weights: Mapping[str, Tensor]) -> None:
        self.unet = unet
        self._own = dict(unet.named_parameters())
        self.weights = {name: nn.Parameter(weights[name].detach().to(unet.device).float().clone()) for name in self._own}

    def inject(self) -> None:
        """Let the UNet have these weights from now on."""
        for own in self._own.values():
            own.data = own.data.cpu()
        _set_parameters(self.unet, self.weights)

    def eject(self) -> None:
        """Give the UNet back exactly as it was."""
        for own in self._own.values():
            own.data = own.data.to(self.unet.device)
        _set_parameters(self.unet, self._own)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything trainable, by name."""
        return self.weights

    def tensors(self) -> dict[str, Tensor]:
        """All weights by the base's own names, in fp32, where they lie: a copy would be as large again."""
        return {name: weight.detach() for name, weight in self.weights.items()}


class LowRank(nn.Module):
    """LoRA (Hu et al. 2021, arXiv 2106.09685): a linear layer plus B A x, with A [r, in] and B [out, r] in fp32.

    Args:
        inner: the layer, which stays as it is.
        down, up: A and B.
    """

    def __init__(self, inner: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(down.detach().float().clone())
        self.up = nn.Parameter(up.detach().float().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        """``hidden`` [..., in] to [..., out]."""
        plain: Tensor = self.inner(hidden)
        return plain + F.linear(F.linear(hidden.float(), self.down), self.up).to(plain.dtype)


class AttentionLoRA:
    """LoRA on the queries, keys, values and outputs of every self- and cross-attention layer of a UNet, in and out.

    Args:
        unet: a ``UNet2DConditionModel``.
        tensors: A and B by name, as :meth:`tensors` gives them.
    """

    def __init__(self, unet: Any, tensors: Mapping[str, Tensor]) -> None:
        self.unet = unet
        self.layers = {
            name: LowRank(
                unet.get_submodule(name), tensors[f"{name}.down"].to(unet.device), tensors[f"{name}.up"].to(unet.device)
            )
            for name in attention_projections(unet)
        }

    @classmethod
    def untrained(cls, unet: Any, *, rank: int, seed: int) -> AttentionLoRA:
        """A is drawn with a standard deviation of 1 / rank, B is zero: the UNet gives what it gave."""
        tensors = {}
        for name in attention_projections(unet):
            weight = unet.get_submodule(name).weight
            noise = randomness(seed, "lora", name)
            tensors[f"{name}.down"] = (
                weight.new_empty(rank, weight.shape[1], device="cpu").float().normal_(0, 1 / rank, generator=noise)
            )
            tensors[f"{name}.up"] = weight.new_zeros(weight.shape[0], rank, device="cpu").float()
        return cls(unet, tensors)

    def inject(self) -> None:
        """Let the UNet use it from now on."""
        for name, layer in self.layers.items():
            _set_module(self.unet, name, layer)

    def eject(self) -> None:
        """Give the UNet back exactly as it was."""
        for name, layer in self.layers.items():
            _set_module(self.unet, name, layer.inner)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Everything trainable, by name."""
        return {f"{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() for part in ("down", "up")}

    def tensors(self) -> dict[str, Tensor]:
        """A and B of every layer, in fp32 on the CPU."""
        return {name: parameter.detach().cpu().contiguous() for name, parameter in self.parameters().items()}


def attention_projections(unet: Any) -> list[str]:
    """The names of the linear layers of all attention layers, 128 in Stable Diffusion 1.x."""
    layers: Sequence[str] = [name for name, _ in unet.named_modules() if name.endswith((".attn1", ".attn2"))]
    return [f"{layer}.{projection}" for layer in layers for projection in _PROJECTIONS]


def _set_parameters(module: Any, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in parameters.items():
        owner, _, own = name.rpartition(".")
        setattr(module.get_submodule(owner), own, parameter)


def _set_module(module: Any, name: str, replacement: nn.Module) -> None:
    owner, _, own = name.rpartition(".")
    module.get_submodule(owner).add_module(own, replacement)  # also into a ModuleList, at its place

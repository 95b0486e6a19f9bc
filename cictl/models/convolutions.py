"""A frozen UNet's convolutions: on a GPU without their input in memory, on a CPU at few positions as products of matrices."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

_LEAST_WEIGHTS = 2**22  # numbers, 16 MiB
_MOST_POSITIONS = 256  # of all pictures of a batch together
_FEW_ROWS = 16  # below which a product with a transposed matrix is slow


def multiply_at_few_positions(unet: Any, *, least_weights: int = _LEAST_WEIGHTS) -> list[str]:
    """Let the large convolutions of ``unet`` be products of matrices whenever they have at most 256 positions.

    The same sums, added in another order: Chellapilla et al. 2006, "High Performance Convolutional Neural Networks for Document
    Processing". The CPU's own convolution brings its weights into another order at every call. Where these are many and
    positions few, that takes longer than the rest.

    Args:
        unet: on a CPU, in fp32.
        least_weights: that a large convolution has.

    Returns:
        Their names.
    """
    large = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= least_weights and _is_plain(module)
    }
    for convolution in large.values():
        convolution.forward = MethodType(_convolve, convolution)  # type: ignore[method-assign]
    return list(large)


def keep_no_input(unet: Any) -> None:
    """Let the convolutions of ``unet`` keep nothing for a backward pass but their weights, as long as these are frozen.

    The library's keep their input for the gradient of the weights, whether there is to be one or not. Nothing else changes.
    """
    for module in unet.modules():
        if isinstance(module, nn.Conv2d) and _is_plain(module):
            module.forward = MethodType(_convolve_frozen, module)  # type: ignore[method-assign]


class _OfInputAlone(torch.autograd.Function):
    """A convolution that only its input has a gradient of."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = hidden.shape, how
        return F.conv2d(hidden, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return conv2d_input(ctx.shape, weight, gradient, *ctx.how), *[None] * (2 + len(ctx.how))


def _convolve_frozen(convolution: nn.Conv2d, hidden: Tensor) -> Tensor:
    if convolution.weight.requires_grad or not hidden.requires_grad:
        return nn.Conv2d.forward(convolution, hidden)
    how = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
    convolved: Tensor = _OfInputAlone.apply(hidden, convolution.weight, convolution.bias, *how)
    return convolved


def _is_plain(convolution: nn.Conv2d) -> bool:
    return convolution.groups == 1 and convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _convolve(convolution: nn.Conv2d, hidden: Tensor) -> Tensor:
    """``convolution`` of ``hidden`` [B, C, H, W]."""
    kernel, dilation, padding, stride = (getattr(convolution, name) for name in ("kernel_size", "dilation", "padding", "stride"))
    height, width = (
        (side + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis, side in enumerate(hidden.shape[2:])
    )
    if len(hidden) * height * width > _MOST_POSITIONS:
        return nn.Conv2d.forward(convolution, hidden)
    rows = F.unfold(hidden, kernel, dilation, padding, stride).transpose(1, 2)  # [B, h w, C k k]
    if len(hidden) > 1 or height * width < _FEW_ROWS:
        rows = rows.contiguous()
    product = F.linear(rows, convolution.weight.flatten(1), convolution.bias)
    return product.transpose(1, 2).unflatten(2, (height, width))

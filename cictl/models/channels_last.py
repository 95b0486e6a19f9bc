"""A frozen UNet whose pictures have their channels last from end to end, so that nothing between two layers is copied.

A GPU's convolutions want channels last. A row of its transformers' tokens is then a position of a picture, without a copy. The
library's own way leaves that order in places where it need not, and what is left in two orders is brought together by slow
copies and additions:

- The output of a transformer is made contiguous, channels first, and its convolution turns it around again.
- The gradient of a convolution of one position by itself, 1 x 1, comes back channels first, since the order of its weights, which
  is both at once, counts as channels first.
- Attention divides its output by 1, which is a pass over the memory forwards and another one backwards.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_channels_last(unet: Any) -> None:
    """Let convolutions and transformers of ``unet``, a ``UNet2DConditionModel``, pass channels last on as they are.

    The same sums, of which those of the 1 x 1 convolutions are a product of matrices.
    """
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    unet.to(memory_format=torch.channels_last)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d) and _is_product(module):
            module.forward = MethodType(_multiply, module)  # type: ignore[method-assign]
        elif isinstance(module, Transformer2DModel):
            module._get_output_for_continuous_inputs = MethodType(_add_output, module)


def _multiply(convolution: nn.Conv2d, hidden: Tensor) -> Tensor:
    """A 1 x 1 ``convolution`` of ``hidden`` [B, C, H, W]."""
    rows = hidden.permute(0, 2, 3, 1)
    product = F.linear(rows.flatten(0, 2), convolution.weight.flatten(1), convolution.bias)
    return product.unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)


def _add_output(
    transformer: Any, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
) -> Tensor:
    """What comes out of ``transformer``, by its last layer, and ``residual`` [B, C, H, W]; ``hidden_states`` is [B, H W, C']."""
    if transformer.use_linear_projection:
        hidden_states = transformer.proj_out(hidden_states)
    picture = hidden_states.unflatten(1, (height, width)).permute(0, 3, 1, 2)
    return (picture if transformer.use_linear_projection else transformer.proj_out(picture)) + residual


def _is_product(convolution: nn.Conv2d) -> bool:
    return convolution.kernel_size == convolution.stride == (1, 1) and convolution.padding == (0, 0) and convolution.groups == 1

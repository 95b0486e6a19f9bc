"""A frozen UNet's normalisations and gates, each in one pass over the memory of a GPU, with channels last.

A GPU's convolutions want channels last and the library's group normalisation channels first, so that each of a UNet's 61 brings
its input into the other order, and the convolution behind it brings the result back. These kernels take what is there: a sum
over the positions of each channel, a few numbers for each group, and one pass that scales, shifts and activates (group
normalisation: Wu and He 2018, arXiv 1803.08494; GEGLU: Shazeer 2020, arXiv 2002.05202). Backwards only the gradient of the
input is computed, and only the input was kept. The result is the same but for rounding, of which there is less: in between all
is fp32.

Needs Triton, which torch brings along on Linux, and of the system what Triton needs: a C compiler.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from cictl.models import kernels
from cictl.models.channels_last import keep_channels_last

_POSITIONS = 64  # that a program reads at once, of as many channels
_CHANNELS = 64
_NUMBERS = 1024  # of a gate, that a program computes
_BLOCKS = 32  # into which the positions of a picture are cut for the sums, at most


def fuse(unet: Any) -> None:
    """Let the normalisations and gates of ``unet``, a ``UNet2DConditionModel`` on a GPU, be fused for as long as it is frozen."""
    from diffusers.models.activations import GEGLU
    from diffusers.models.resnet import ResnetBlock2D

    keep_channels_last(unet)
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D) and _is_plain(module):
            module.forward = MethodType(_residual, module)
        elif isinstance(module, nn.GroupNorm):
            module.forward = MethodType(_norm, module)  # type: ignore[method-assign]
        elif isinstance(module, GEGLU):
            module.forward = MethodType(_gate, module)
    unet.conv_norm_out.forward = MethodType(_norm_and_silu, unet.conv_norm_out)
    unet.conv_act = nn.Identity()


def what_fails_on(device: torch.device) -> str:
    """Why the kernels cannot be built and run on ``device``, or nothing: tried, since a compiler may be missing or too old."""
    try:
        norm = nn.GroupNorm(2, 4, device=device).requires_grad_(False)
        for work in (lambda x: normalize(x, norm, silu=True), lambda x: gated(x.flatten(1))):
            work(torch.ones(1, 4, 2, 2, device=device, requires_grad=True)).sum().backward()
    except Exception as error:  # whatever Triton, its compiler or the driver raises: the library's kernels are there
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def _is_plain(block: Any) -> bool:
    """Whether it is a block as Stable Diffusion 1.x has it: ``_residual`` does nothing else."""
    return (
        block.upsample is block.downsample is None
        and block.time_emb_proj is not None
        and block.time_embedding_norm == "default"
        and not block.skip_time_act
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
    )


def _residual(block: Any, hidden: Tensor, temb: Tensor) -> Tensor:
    """``block`` of ``hidden`` [B, C, H, W] and the embedded timestep [B, T], without the library's division by 1."""
    changed = block.conv1(normalize(hidden, block.norm1, silu=True))
    changed = changed + block.time_emb_proj(F.silu(temb))[:, :, None, None]
    changed = block.conv2(block.dropout(normalize(changed, block.norm2, silu=True)))
    return (hidden if block.conv_shortcut is None else block.conv_shortcut(hidden)) + changed


def _norm_and_silu(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
    return normalize(hidden, norm, silu=True)


def _norm(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
    return normalize(hidden, norm, silu=False)


def normalize(hidden: Tensor, norm: nn.GroupNorm, *, silu: bool) -> Tensor:
    """``norm`` of ``hidden`` [B, C, H, W], and SiLU of it; by the library while its weights train."""
    if norm.weight.requires_grad or hidden.dim() != 4:
        plain = nn.GroupNorm.forward(norm, hidden)
        return F.silu(plain) if silu else plain
    normalized: Tensor = _Normalized.apply(hidden, norm.weight, norm.bias, norm.num_groups, norm.eps, silu)
    return normalized


def _gate(gate: Any, hidden: Tensor) -> Tensor:
    return gated(gate.proj(hidden))


def gated(projected: Tensor) -> Tensor:
    """GEGLU: of ``projected`` [..., 2 F] the first half times GELU of the second, [..., F]."""
    result: Tensor = _Gated.apply(projected)
    return result


class _Gated(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor) -> Tensor:
        projected = projected.contiguous()
        ctx.save_for_backward(projected)
        width = projected.shape[-1] // 2
        output = projected.new_empty((*projected.shape[:-1], width))
        kernels.multiply_by_gelu[triton.cdiv(output.numel(), _NUMBERS),](projected, output, output.numel(), width, _NUMBERS)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (projected,) = ctx.saved_tensors
        gradient, result = gradient.contiguous(), torch.empty_like(projected)
        count, width = gradient.numel(), gradient.shape[-1]
        kernels.gradient_of_gate[triton.cdiv(count, _NUMBERS),](projected, gradient, result, count, width, _NUMBERS)
        return result


class _Normalized(torch.autograd.Function):
    """With the gradient of the input alone. Keeps the input, and two numbers a channel of each picture."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = hidden.shape
        positions, size, (blocks, turns) = height * width, channels // groups, _shares(height * width)
        sums = hidden.new_empty((batch, blocks, 2, channels), dtype=torch.float32)
        scale, shift = (hidden.new_empty((batch, channels), dtype=torch.float32) for _ in range(2))
        stats = hidden.new_empty((batch, groups, 2), dtype=torch.float32)
        across = triton.cdiv(channels, _CHANNELS)
        kernels.sum_channels[batch, blocks, across](hidden, sums, positions, channels, blocks, turns, _POSITIONS, _CHANNELS)
        kernels.to_scale[batch, groups](
            sums, weight, bias, scale, shift, stats, positions, channels, blocks, eps, size, triton.next_power_of_2(size),
            triton.next_power_of_2(blocks),
        )  # fmt: skip
        output = torch.empty_like(hidden, memory_format=torch.channels_last)
        kernels.scale_and_activate[batch, triton.cdiv(positions, _POSITIONS), across](
            hidden, scale, shift, output, positions, channels, silu, _POSITIONS, _CHANNELS
        )
        ctx.save_for_backward(hidden, weight, scale, shift, stats)
        ctx.silu = silu
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight, scale, shift, stats = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = hidden.shape
        groups, positions, (blocks, turns) = stats.shape[1], height * width, _shares(height * width)
        size, across = channels // groups, triton.cdiv(channels, _CHANNELS)
        sums = hidden.new_empty((batch, blocks, 2, channels), dtype=torch.float32)
        of_input, constant = (hidden.new_empty((batch, groups), dtype=torch.float32) for _ in range(2))
        kernels.sum_gradients[batch, blocks, across](
            hidden, gradient, scale, shift, sums, positions, channels, blocks, ctx.silu, turns, _POSITIONS, _CHANNELS
        )
        kernels.to_coefficients[batch, groups](
            sums, weight, stats, of_input, constant, positions, channels, blocks, size, triton.next_power_of_2(size),
            triton.next_power_of_2(blocks),
        )  # fmt: skip
        result = torch.empty_like(hidden, memory_format=torch.channels_last)
        kernels.input_gradient[batch, triton.cdiv(positions, _POSITIONS), across](
            hidden, gradient, scale, shift, of_input, constant, result, positions, channels, groups, size, ctx.silu,
            _POSITIONS, _CHANNELS,
        )  # fmt: skip
        return result, None, None, None, None, None


def _shares(positions: int) -> tuple[int, int]:
    """How many programs share the positions of a picture for the sums, and how often each reads some."""
    reads = triton.cdiv(positions, _POSITIONS)
    blocks = min(_BLOCKS, reads)
    return blocks, triton.cdiv(reads, blocks)

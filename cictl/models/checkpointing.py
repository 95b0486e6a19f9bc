"""Activation checkpointing of a UNet: what the backward pass needs is computed again in it, not kept.

Chen et al. 2016, arXiv 1604.06174. It is exact: the same operations on the same numbers, so that no bit of a gradient changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint

from cictl.config import MemoryMode


def compute_again(module: Any, *arguments: Any) -> Any:
    """Call ``module`` and keep nothing but its arguments. It draws no random numbers, which would have to be put back."""
    return checkpoint(module, *arguments, use_reentrant=False, preserve_rng_state=False)


def set_memory(unet: Any, memory: MemoryMode, call: Callable[..., Any] = compute_again) -> None:
    """Choose what training keeps of a forward pass, by the switches that diffusers' blocks have. Drawing is not concerned.

    Args:
        unet: a ``UNet2DConditionModel``.
        memory: full keeps everything, and is how a UNet begins; low lets the residual and attention blocks at the latents' own
            resolution be computed again, lowest all of them.
        call: calls such a block.
    """
    chosen = {"full": (), "low": (unet.down_blocks[0], unet.up_blocks[-1]), "lowest": (unet,)}[memory]
    again = {module for block in chosen for module in block.modules()}
    for module in unet.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = module in again
            module._gradient_checkpointing_func = call

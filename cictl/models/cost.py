"""What a training step costs, counted on the model's own layers without loading a weight."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cictl.config import MemoryMode
from cictl.models.checkpointing import set_memory

_COPIES = 4  # the parameter, its gradient, AdamW's two moments
_FP32 = 4  # bytes
_SHARE = 0.9  # of the free memory, that training may plan with


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of training.

    Attributes:
        flops: floating-point operations, forward and backward, a multiplication and an addition being two.
        weights: bytes of UNet and text encoder.
        activations: bytes that the forward pass keeps for the backward pass.
        recomputed: bytes of the largest part that the backward pass computes again, at a time.
        trainable: bytes of what is trained, with gradients and moments.
        calls: of the library's operations, each of which takes a while however small it is.
    """

    flops: float
    weights: int
    activations: int
    recomputed: int
    trainable: int
    calls: int

    @property
    def memory(self) -> int:
        """Bytes that must be there at once, without the libraries' own working memory."""
        return self.weights + self.activations + self.recomputed + self.trainable

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint: K, V as the result; K, V, K^a, V^a with two moments each as the state."""
        trained = self.trainable // _COPIES
        return trained // 2 + 3 * trained


def fastest_that_fits(needed: Callable[[MemoryMode], int], free: int) -> MemoryMode:
    """Of what training can keep, the most whose bytes, ``needed``, fit into 90% of the ``free`` ones; else the least."""
    *faster, slowest = get_args(MemoryMode)
    return next((mode for mode in faster if needed(mode) <= _SHARE * free), slowest)


def count_step(
    folder: Path,
    *,
    stage: str,
    resolution: int,
    batch: int,
    dtype: torch.dtype,
    memory: MemoryMode = "full",
    backward: bool = True,
) -> StepCost:
    """Count a step of ``stage`` on the model in ``folder`` (diffusers layout), with shapes alone.

    Attention is counted as flash attention does it, without matrices of scores.

    Args:
        resolution: side of the photographs in pixels.
        batch: samples that go through at a time.
        dtype: of the frozen parts.
        memory: what is kept.
        backward: whether the backward pass is counted too; all bytes are known without it, in half the time.
    """
    from diffusers import UNet2DConditionModel
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModel

    with FakeTensorMode(), _default_dtype(dtype):
        unet: Any = UNet2DConditionModel.from_config(_config(folder / "unet"))
        text: Any = CLIPTextModel(CLIPTextConfig(**_config(folder / "text_encoder")))
        kept = _Kept([unet, text])
        again = _ComputedAgain(kept)
        set_memory(unet, memory, again)
        trained = _choose_trained(unet, text, stage)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor)
        with FlopCounterMode(display=False) as counter, _Calls() as calls, hooks:
            loss = _loss(unet, text, stage, resolution // _reduction(folder), batch)
            if backward:
                loss.backward()
        weights = sum(weight.numel() * weight.element_size() for part in (unet, text) for weight in part.parameters())
    return StepCost(float(counter.get_total_flops()), weights, kept.bytes, again.largest, trained * _FP32 * _COPIES, calls.count)


def _choose_trained(unet: Any, text: Any, stage: str) -> int:
    """Let gradients flow to what the stage trains; how many numbers it is, of which a few rows of stage 1 are not counted."""
    for part in (unet, text):
        part.eval().requires_grad_(False)
    if stage == "invert":
        text.get_input_embeddings().weight.requires_grad_(True)
        return 0
    trained = [weight for name, weight in unet.named_parameters() if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))]
    for weight in trained:
        weight.requires_grad_(True)
    return 2 * sum(weight.numel() for weight in trained)  # K, V and K^a, V^a


def _loss(unet: Any, text: Any, stage: str, side: int, batch: int) -> Tensor:
    length = text.config.max_position_embeddings
    if stage == "invert":
        context = text(input_ids=torch.zeros(batch, length, dtype=torch.long)).last_hidden_state
    else:
        context = torch.empty(batch, length, text.config.hidden_size)
    latents, timesteps = torch.empty(batch, unet.config.in_channels, side, side), torch.zeros(batch, dtype=torch.long)
    prediction: Tensor = unet(latents, timesteps, context).sample
    return prediction.float().square().mean()


class _Calls(TorchDispatchMode):
    """Counts operations."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


class _Kept:
    """Adds up what autograd keeps: each tensor's memory once, and the weights not at all."""

    def __init__(self, modules: list[nn.Module], seen: Iterable[int] = ()) -> None:
        self.bytes = 0
        self._seen = {_memory(weight) for module in modules for weight in module.parameters()} | set(seen)
        self._alive: list[Tensor] = []  # or the memory's address could come again

    def __call__(self, tensor: Tensor) -> Tensor:
        if _memory(tensor) not in self._seen:
            self._seen.add(_memory(tensor))
            self._alive.append(tensor)
            self.bytes += tensor.untyped_storage().nbytes()
        return tensor

    def beside(self) -> _Kept:
        """One that adds up what is kept beside this."""
        return _Kept([], self._seen)


class _ComputedAgain:
    """Stands for a checkpoint: the operations of a second forward pass, and only the arguments kept throughout."""

    def __init__(self, kept: _Kept) -> None:
        self.largest = 0
        self._kept = kept

    def __call__(self, module: Any, *arguments: Any) -> Any:
        for argument in arguments:
            if isinstance(argument, Tensor):
                self._kept(argument)
        own = self._kept.beside()
        with torch.autograd.graph.saved_tensors_hooks(own, lambda tensor: tensor):
            result = module(*arguments)
        self.largest = max(self.largest, own.bytes)
        if own.bytes:
            with torch.no_grad():
                module(*arguments)
        return result


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _reduction(folder: Path) -> int:
    """How many pixels a latent is wide: 8 in Stable Diffusion."""
    return int(2 ** (len(_config(folder / "vae")["block_out_channels"]) - 1))


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    return config


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)

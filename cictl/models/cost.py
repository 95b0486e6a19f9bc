"""What a step of training or of drawing costs, counted on the model's own layers without loading a weight."""

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
from cictl.models.attention_layers import keys_and_values, use_plain_attention
from cictl.models.base_files import KEY_VALUE
from cictl.models.checkpointing import set_memory
from cictl.models.tuned_unet import AttentionLoRA, attention_projections

_COPIES = 4  # the parameter, its gradient, AdamW's two moments
_FP32 = 4  # bytes
_TRAINS_TOKENS = ("invert", "textual-inversion", "custom-diffusion")  # so that gradients go through the text encoder
_STORED_ONCE = ("dreambooth", "disenbooth")  # whose results have the names that their parameters have in training
_SHARE = 0.9  # of the free memory, that training may plan with


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of training.

    Attributes:
        flops: floating-point operations, forward and backward, a multiplication and an addition being two.
        weights: bytes of UNet and text encoder, as far as they are frozen.
        activations: bytes that the forward pass keeps for the backward pass.
        recomputed: bytes of the largest part that the backward pass computes again, at a time.
        trainable: bytes of what is trained, with gradients and moments.
        result: bytes of that of it which generation reads.
        checkpoint: bytes of a checkpoint: what is trained with its two moments, and the result where that is not among it.
        calls: of the library's operations, each of which takes a while however small it is.
    """

    flops: float
    weights: int
    activations: int
    recomputed: int
    trainable: int
    result: int
    checkpoint: int
    calls: int

    @property
    def memory(self) -> int:
        """Bytes that must be there at once, without the libraries' own working memory."""
        return self.weights + self.activations + self.recomputed + self.trainable


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
    passes: int = 1,
    rank: int = 0,
    token: bool = False,
    backward: bool = True,
) -> StepCost:
    """Count a step of ``stage`` on the model in ``folder`` (diffusers layout), with shapes alone.

    Attention is counted as flash attention does it, without matrices of scores.

    Args:
        resolution: side of the photographs in pixels.
        batch: samples that go through at a time.
        dtype: of the frozen parts.
        memory: what is kept.
        passes: of the batch through the UNet before the backward pass: two for a prior loss, or for a second one.
        rank: of LoRA, for the stage that trains one.
        token: whether stage 2 trains S* too.
        backward: whether the backward pass is counted too; all bytes are known without it, in half the time.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPTextConfig, CLIPTextModel

    with FakeTensorMode(), _default_dtype(dtype):
        unet = _unet(folder, torch.float32 if stage == "dreambooth" else dtype)
        text: Any = CLIPTextModel(CLIPTextConfig(**_config(folder / "text_encoder")))
        frozen = [text] if stage == "dreambooth" else [unet, text]
        weights = sum(weight.numel() * weight.element_size() for part in frozen for weight in part.parameters())
        trained, result = _choose_trained(unet, text, stage, rank)
        text.get_input_embeddings().weight.requires_grad_(token or stage in _TRAINS_TOKENS)
        kept = _Kept([unet, text])
        again = _ComputedAgain(kept)
        set_memory(unet, memory, again)
        hooks = torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor)
        with FlopCounterMode(display=False) as counter, _Calls() as calls, hooks:
            loss = _loss(unet, text, resolution // _reduction(folder), batch, passes)
            if backward:
                loss.backward()
    parameters, read = trained * _FP32, result * _FP32
    checkpoint = 3 * parameters + (0 if stage in _STORED_ONCE else read)
    flops = float(counter.get_total_flops())
    return StepCost(flops, weights, kept.bytes, again.largest, _COPIES * parameters, read, checkpoint, calls.count)


def count_denoising(
    folder: Path, *, size: tuple[int, int], batch: int, dtype: torch.dtype, guided: bool = True
) -> tuple[float, int]:
    """Floating-point operations, and calls of the library, of one step in which ``batch`` pictures are drawn.

    The keys and values of the prompts, which all steps share, are not among them.

    Args:
        size: width and height of the pictures in pixels.
        guided: whether there is guidance, for which the UNet sees each picture twice.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    (width, height), count = (side // _reduction(folder) for side in size), (1 + guided) * batch
    with FakeTensorMode(), _default_dtype(dtype), torch.no_grad():
        unet = _unet(folder, dtype).eval()
        use_plain_attention(unet)
        length, features = _config(folder / "text_encoder")["max_position_embeddings"], unet.config.cross_attention_dim
        read = keys_and_values(unet, torch.empty(count, length, features))
        with FlopCounterMode(display=False) as counter, _Calls() as calls:
            unet(*_noisy(unet, width, height, count), read)
    return float(counter.get_total_flops()), calls.count


def _unet(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import UNet2DConditionModel

    with _default_dtype(dtype):
        return UNet2DConditionModel.from_config(_config(folder / "unet"))


def _choose_trained(unet: Any, text: Any, stage: str, rank: int) -> tuple[int, int]:
    """Let gradients flow to what the stage trains of the UNet, and to nothing else.

    Returns:
        How many numbers it is, of which the few rows of new tokens are not counted, and how many of them the result has.
    """
    for part in (unet, text):
        part.eval().requires_grad_(False)
    if stage == "disenbooth":
        width = text.config.hidden_size
        lora = _add_lora(unet, rank)
        return lora + width + 2 * (width + 1) * width, lora  # the adapter: a mask, and two layers with their biases
    ends = {"finetune": KEY_VALUE, "custom-diffusion": KEY_VALUE, "dreambooth": ("",)}.get(stage, ())
    trained = [weight.requires_grad_(True) for name, weight in unet.named_parameters() if name.endswith(ends)]
    count = sum(weight.numel() for weight in trained)
    return (2 * count if stage == "finetune" else count), count  # stage 2: K, V and K^a, V^a


def _add_lora(unet: Any, rank: int) -> int:
    tensors: dict[str, Tensor] = {}
    for name in attention_projections(unet):
        width_out, width_in = unet.get_submodule(name).weight.shape
        tensors |= {f"{name}.down": torch.empty(rank, width_in), f"{name}.up": torch.empty(width_out, rank)}
    AttentionLoRA(unet, tensors).inject()
    return sum(tensor.numel() for tensor in tensors.values())


def _loss(unet: Any, text: Any, side: int, batch: int, passes: int) -> Tensor:
    length = text.config.max_position_embeddings
    if text.get_input_embeddings().weight.requires_grad:
        context = text(input_ids=torch.zeros(batch, length, dtype=torch.long)).last_hidden_state
    else:
        context = torch.empty(batch, length, text.config.hidden_size, dtype=unet.dtype)
    predictions = [unet(*_noisy(unet, side, side, batch), context).sample for _ in range(passes)]
    return torch.stack([prediction.float().square().mean() for prediction in predictions]).sum()


def _noisy(unet: Any, width: int, height: int, batch: int) -> tuple[Tensor, Tensor]:
    """Latents and timesteps."""
    latents = torch.empty(batch, unet.config.in_channels, height, width, dtype=unet.dtype)
    return latents, torch.zeros(batch, dtype=torch.long)


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

"""A UNet with channels last: the numbers of the plain one, and no picture or gradient in another order on its way."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cictl.models.channels_last import keep_channels_last
from cictl.models.convolutions import keep_no_input


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def unet(model):
    """A copy of the tiny UNet as a GPU has it, frozen."""
    unet = copy.deepcopy(model.unet)
    keep_no_input(unet)
    return unet


def predict(unet: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A prediction and the gradient that its context gets."""
    context = drawn(2, 7, 32, seed=4, dtype=dtype).requires_grad_(True)
    predicted = unet(drawn(2, 4, 16, 16, dtype=dtype), torch.tensor([3, 700]), encoder_hidden_states=context).sample
    (gradient,) = torch.autograd.grad(predicted.square().sum(), context)
    return {"predicted": predicted.detach(), "gradient": gradient}


def test_it_predicts_what_the_plain_one_does_with_its_gradient(model, unet):
    expected = predict(copy.deepcopy(model.unet).double(), torch.float64)
    keep_channels_last(unet.double())
    for name, found in predict(unet, torch.float64).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("linear", [True, False])
def test_a_transformer_of_either_kind_of_projection_is_the_librarys(linear):
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    plain = Transformer2DModel(2, 4, in_channels=8, norm_num_groups=2, cross_attention_dim=6, use_linear_projection=linear)
    other = copy.deepcopy(plain)
    keep_channels_last(other)
    hidden, context = drawn(2, 8, 3, 5), drawn(2, 7, 6, seed=1)
    torch.testing.assert_close(other(hidden, context).sample, plain(hidden, context).sample)


class _Passes(TorchDispatchMode):
    """Counts copies, divisions and 1 x 1 convolutions of whole pictures, and sums of two in different orders."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = self.divisions = self.convolutions = self.sums = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        pictures = [one for one in arguments if isinstance(one, torch.Tensor) and one.dim() == 4 and one.shape[2] > 1]
        self.copies += name in ("clone", "copy_") and arguments[0].dim() > 2
        self.divisions += name == "div" and arguments[0].dim() > 2
        self.convolutions += "convolution" in name and any(one.shape[2:] == (1, 1) for one in arguments[:3] if one is not None)
        self.sums += name == "add" and len({one.stride(1) == 1 for one in pictures}) == 2
        return function(*arguments, **(options or {}))


def test_nothing_is_brought_into_another_order_and_back(unet, monkeypatch):
    pytest.importorskip("triton", reason="it exists on Linux alone")
    from cictl.models import fused

    def normalize(hidden: torch.Tensor, norm: nn.GroupNorm, *, silu: bool) -> torch.Tensor:
        normalized = nn.GroupNorm.forward(norm, hidden)
        return F.silu(normalized) if silu else normalized

    orders: list[bool] = []

    def look(module: nn.Module, arguments: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        orders.append(arguments[0].is_contiguous(memory_format=torch.channels_last))
        if result.requires_grad:
            result.register_hook(lambda gradient: orders.append(gradient.stride(1) == 1))

    monkeypatch.setattr(fused, "normalize", normalize)  # Triton's interpreter copies whatever it is given
    monkeypatch.setattr(fused, "gated", lambda projected: projected[..., ::2] * projected[..., 1::2])
    fused.fuse(unet)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d) and module not in (unet.conv_in, unet.conv_out):  # which are at the latents, of four
            module.register_forward_hook(look)
    with _Passes() as found:
        predict(unet)
    skips = sum(len(block.resnets) for block in unet.up_blocks)
    assert len(orders) > 20 and all(orders)
    assert found.copies <= skips  # the part of a gradient that goes back along a skip lies in between others
    assert (found.divisions, found.convolutions, found.sums) == (0, 0, 0)

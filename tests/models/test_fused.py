"""Fused normalisations and gates against the library's, in Triton's interpreter on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("triton", reason="it exists on Linux alone")

from cictl.models import fused

CPU = torch.device("cpu")
PRECISIONS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_alike(work, exact, *inputs: torch.Tensor, tolerance: float) -> None:
    """Result and gradient of ``work``, against those of ``exact`` in fp64."""
    results = []
    for one, function in ((inputs[0], work), (inputs[0].double(), exact)):
        given = one.clone().requires_grad_(True)
        result = function(given)
        weights = drawn(*result.shape, dtype=result.dtype, seed=1)
        results.append([result.detach(), *torch.autograd.grad(result, given, weights.to(result.dtype))])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == inputs[0].dtype and found.shape == expected.shape
        assert float((found.double() - expected).norm() / expected.norm()) < tolerance


def norm_of(channels: int, groups: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps=1e-5).requires_grad_(False)
    norm.weight.copy_(drawn(channels, seed=2))
    norm.bias.copy_(drawn(channels, seed=3))
    return norm


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 20, 5, 7), 2), ((1, 64, 9, 9), 32), ((3, 96, 8, 8), 8), ((1, 8, 65, 64), 4)], ids=str
)
def test_a_normalisation_is_the_librarys_and_has_its_gradient(shape, groups, dtype, silu):
    norm = norm_of(shape[1], groups)
    exact = copy.deepcopy(norm).double()

    def plain(hidden):
        return F.silu(exact(hidden)) if silu else exact(hidden)

    hidden = (drawn(*shape) * 2 + 1).to(dtype)
    for order in (torch.contiguous_format, torch.channels_last):
        given = hidden.contiguous(memory_format=order)
        assert_alike(lambda x: fused.normalize(x, norm.to(dtype), silu=silu), plain, given, tolerance=PRECISIONS[dtype])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 24), (1, 700, 16), (3, 2)], ids=str)
def test_a_gate_is_the_librarys_and_has_its_gradient(shape, dtype):
    def plain(projected):
        hidden, gate = projected.chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    assert_alike(fused.gated, plain, drawn(*shape, dtype=dtype), tolerance=PRECISIONS[dtype])


def test_a_fused_unet_predicts_what_the_plain_one_does_with_its_gradient_and_keeps_less(model):
    plain = model.unet
    other = copy.deepcopy(plain)
    fused.fuse(other)
    noisy, context = drawn(2, 4, 16, 16), drawn(2, 7, 32, seed=4).requires_grad_(True)
    results, kept = [], []
    for unet in (plain, other):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda x: x
        ):
            predicted = unet(noisy, torch.tensor([3, 700]), encoder_hidden_states=context).sample
        gradient = torch.autograd.grad(predicted.square().mean(), context)[0]
        results.append((predicted.detach(), gradient))
        kept.append(sum(sizes))
    for one, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=2e-5)
    assert kept[1] < 0.9 * kept[0]


def test_weights_that_train_are_left_to_the_library(model):
    unet = copy.deepcopy(model.unet)
    fused.fuse(unet)
    for parameter in unet.parameters():
        parameter.requires_grad_(True)
    plain = copy.deepcopy(model.unet).requires_grad_(True)
    noisy, context = drawn(2, 4, 16, 16), drawn(2, 7, 32, seed=4)
    gradients = []
    for one in (unet, plain):
        loss = one(noisy, torch.tensor([3, 700]), encoder_hidden_states=context).sample.square().mean()
        gradients.append(torch.autograd.grad(loss, list(one.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # where nothing is kept of the result
def test_where_triton_fails_the_library_stays(monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    assert fused.what_fails_on(CPU) == ""
    monkeypatch.setattr(fused, "normalize", fail)
    assert fused.what_fails_on(CPU) == "Failed to find C compiler"

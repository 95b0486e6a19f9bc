"""Convolutions that keep no input, and such as are products of matrices: the numbers of the convolution itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cictl.models.convolutions import keep_no_input, multiply_at_few_positions
from cictl.models.locate import locate_base
from cictl.models.stable_diffusion import StableDiffusion
from tests.support import assert_same_bits


def results(convolution: nn.Conv2d, hidden: torch.Tensor) -> dict[str, torch.Tensor]:
    """What it gives, and the gradients of a sum of it with random weights."""
    hidden = hidden.clone().requires_grad_(True)
    given = convolution(hidden)
    weights = torch.randn(given.shape, generator=torch.Generator().manual_seed(1), dtype=given.dtype)
    gradients = torch.autograd.grad((given * weights).sum(), [hidden, *convolution.parameters()])
    return {"given": given.detach(), **{str(number): gradient for number, gradient in enumerate(gradients)}}


@pytest.mark.parametrize("shape", [(1, 3, 9, 7), (1, 3, 3, 2), (3, 3, 5, 8)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 2), "dilation": (1, 2)},
    ],
    ids=str,
)
def test_the_product_is_the_convolution(shape, options):
    plain = nn.Conv2d(3, 5, **options, dtype=torch.float64)
    multiplied = copy.deepcopy(plain)
    assert multiply_at_few_positions(multiplied, least_weights=0) == [""]
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = results(plain, hidden)
    for name, value in results(multiplied, hidden).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


def test_many_positions_leave_the_bits_of_the_convolution():
    plain = nn.Conv2d(3, 5, 3, padding=1)
    multiplied = copy.deepcopy(plain)
    multiply_at_few_positions(multiplied, least_weights=0)
    hidden = torch.randn(1, 3, 16, 17)
    assert_same_bits(results(multiplied, hidden), results(plain, hidden))


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}], ids=["groups", "same", "reflect"]
)
def test_other_convolutions_stay_as_they_are(options):
    assert multiply_at_few_positions(nn.Conv2d(4, 4, 3, **options), least_weights=0) == []


def test_a_copy_has_weights_of_its_own():
    original = nn.Conv2d(3, 5, 3)
    multiply_at_few_positions(original, least_weights=0)
    copied = copy.deepcopy(original)
    nn.init.zeros_(copied.weight)
    nn.init.zeros_(copied.bias)
    hidden = torch.randn(1, 3, 5, 5)
    assert copied(hidden).abs().max() == 0 < original(hidden).abs().max()


def test_the_toyboxs_convolutions_are_all_too_small():
    toybox = StableDiffusion.load(locate_base("toybox"), torch.device("cpu"), torch.float32)
    assert multiply_at_few_positions(toybox.unet) == []


@pytest.mark.parametrize("shape", [(1, 4, 9, 7), (3, 4, 5, 8)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2, "groups": 2},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": (3, 2), "padding": (2, 1), "stride": (1, 2), "dilation": (1, 2)},
        {"kernel_size": 3, "padding": "same"},
    ],
    ids=str,
)
def test_a_frozen_convolution_that_keeps_no_input_has_the_same_bits(shape, options):
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    plain = nn.Conv2d(4, 6, **options).requires_grad_(False)
    frozen = copy.deepcopy(plain)
    keep_no_input(frozen)
    given = [convolution(hidden) for convolution in (plain, frozen)]
    weights = torch.randn(given[0].shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((one * weights).sum(), hidden)[0] for one in given]
    assert torch.equal(*given) and torch.equal(*gradients)


def test_it_keeps_its_weights_alone_and_while_they_train_its_input_too():
    convolution = nn.Conv2d(4, 4, 3)
    keep_no_input(convolution)
    hidden = torch.randn(1, 4, 9, 9, requires_grad=True)
    for trains in (False, True):
        convolution.requires_grad_(trains)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, kept=kept: kept.append(tensor.data_ptr()) or tensor, lambda x: x
        ):
            convolution(hidden).sum()
        assert convolution.weight.data_ptr() in kept
        assert (hidden.data_ptr() in kept) == trains

"""Eq. 3 against softmax attention in loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.functional.attention import disentangled_attention

B, H, L, D, T, TA = 2, 3, 5, 4, 6, 7


@pytest.fixture
def tensors() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, H, L, D), (B, H, T, D), (B, H, T, D), (B, H, TA, D), (B, H, TA, D)]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


@pytest.fixture
def mask() -> Tensor:
    return torch.tensor([[True, False, True, True, False, False, True], [False, True, False, False, False, False, False]])


def naive(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    out = torch.zeros(query.shape)
    for b in range(query.shape[0]):
        seen = [t for t in range(key.shape[2]) if mask is None or mask[b, t]]
        for h in range(query.shape[1]):
            for row in range(query.shape[2]):
                weights = [math.exp(float(query[b, h, row] @ key[b, h, t]) / math.sqrt(query.shape[3])) for t in seen]
                for weight, t in zip(weights, seen, strict=True):
                    out[b, h, row] += weight / sum(weights) * value[b, h, t]
    return out


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("masked", [False, True])
def test_eq_3_equals_naive_softmax_attention(tensors, mask, scale: float, masked: bool):
    query, key, value, key_a, value_a = tensors
    seen = mask if masked else None
    expected = naive(query, key, value) + scale * naive(query, key_a, value_a, seen)
    torch.testing.assert_close(disentangled_attention(query, key, value, key_a, value_a, scale, seen), expected)


def test_lambda_zero_is_plain_attention_bit_for_bit(tensors, mask):
    query, key, value, key_a, value_a = tensors
    plain = F.scaled_dot_product_attention(query, key, value)
    assert torch.equal(disentangled_attention(query, key, value, key_a, value_a, 0, mask), plain)
    assert torch.equal(disentangled_attention(query, key, value, key_a * float("nan"), value_a, 0.0), plain)


def test_masked_positions_have_no_influence(tensors, mask):
    query, key, value, key_a, value_a = tensors
    before = disentangled_attention(query, key, value, key_a, value_a, 1.0, mask)
    hidden = ~mask[:, None, :, None].expand(B, H, TA, D)
    after = disentangled_attention(query, key, value, key_a.masked_fill(hidden, 9), value_a.masked_fill(hidden, -9), 1.0, mask)
    assert torch.equal(before, after)


def test_a_mask_that_hides_nothing_changes_nothing(tensors):
    without = disentangled_attention(*tensors, 1.0)
    torch.testing.assert_close(disentangled_attention(*tensors, 1.0, torch.ones(B, TA, dtype=torch.bool)), without)

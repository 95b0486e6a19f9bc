"""Eq. 3 against softmax attention in loops, and the aggregation of attention maps."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.functional.attention import attention_probabilities, disentangled_attention, mean_over_layers, token_map

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
    assert torch.equal(disentangled_attention(query, key, value, key_a, value_a * float("nan"), 0.0), plain)


def test_masked_positions_have_no_influence(tensors, mask):
    query, key, value, key_a, value_a = tensors
    before = disentangled_attention(query, key, value, key_a, value_a, 1.0, mask)
    hidden = ~mask[:, None, :, None].expand(B, H, TA, D)
    after = disentangled_attention(query, key, value, key_a.masked_fill(hidden, 9), value_a.masked_fill(hidden, -9), 1.0, mask)
    assert torch.equal(before, after)


def test_a_mask_that_hides_nothing_changes_nothing(tensors):
    without = disentangled_attention(*tensors, 1.0)
    torch.testing.assert_close(disentangled_attention(*tensors, 1.0, torch.ones(B, TA, dtype=torch.bool)), without)


# -- heat maps --------------------------------------------------------------------------------------


def test_probabilities_are_what_attention_weighs_values_with(tensors):
    query, key, value, *_ = tensors
    probabilities = attention_probabilities(query, key)
    assert probabilities.shape == (B, H, L, T) and probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(B, H, L))
    torch.testing.assert_close(probabilities @ value, naive(query, key, value))
    half, other = query.half(), key.half()  # of which the shares are still found in fp32
    assert torch.equal(attention_probabilities(half, other), attention_probabilities(half.float(), other.float()))


def enlarged(layer: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, as pictures are enlarged: the centre of a pixel stays where it is, and beyond the rim is the rim."""
    tokens, h, w = layer.shape
    out = torch.zeros(tokens, height, width)
    for y in range(height):
        for x in range(width):
            across, down = (x + 0.5) * w / width - 0.5, (y + 0.5) * h / height - 0.5
            left, top = math.floor(across), math.floor(down)
            for row, share_y in ((top, 1 - (down - top)), (top + 1, down - top)):
                for column, share_x in ((left, 1 - (across - left)), (left + 1, across - left)):
                    pixel = layer[:, min(max(row, 0), h - 1), min(max(column, 0), w - 1)]
                    out[:, y, x] += share_y * share_x * pixel
    return out


def test_layers_of_different_sizes_are_enlarged_and_averaged():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(T, h, w, generator=generator).softmax(0) for h, w in ((2, 3), (4, 6), (8, 12), (4, 6))]
    expected = sum(enlarged(layer, 8, 12) for layer in maps) / 4
    found = mean_over_layers(maps, (8, 12))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(0), torch.ones(8, 12))
    assert found.min() >= 0


def test_a_tokens_map_is_the_sum_over_its_vectors():
    maps = torch.rand(T, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(3, 4)
    for position in (1, 4):
        for y in range(3):
            for x in range(4):
                expected[y, x] += maps[position, y, x]
    torch.testing.assert_close(token_map(maps, [1, 4]), expected)
    assert torch.equal(token_map(maps, [2]), maps[2])

"""Attention as Stable Diffusion 1.x has it: the library's bits, and the same from keys and values that were computed before."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from cictl.models.attention_layers import PlainAttention, cross_attention_layers, keys_and_values, use_plain_attention
from cictl.models.attention_processors import AttentionRecorder, TunedCrossAttention
from cictl.models.base_files import base_unet_weights
from cictl.models.tuned_unet import AttentionLoRA, TunedUNet
from tests.support import assert_same_bits


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def changed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight + 0.1 * drawn(*weight.shape) for name, weight in weights.items()}


def lora(model) -> AttentionLoRA:
    untrained = AttentionLoRA.untrained(model.unet, rank=2, seed=0)
    return AttentionLoRA(model.unet, changed(untrained.tensors()))


# What is put into a UNet to draw with it.
ADDED = {
    "nothing": None,
    "K, V": lambda model: TunedCrossAttention(model.unet, changed(model.key_values)),
    "a UNet": lambda model: TunedUNet(model.unet, changed(base_unet_weights(model.located))),
    "LoRA": lora,
}


def test_attention_has_the_bits_of_the_librarys(model):
    hidden, context = drawn(2, 9, 32), drawn(2, 5, 32, seed=1)
    for name, given in (("attn1", None), ("attn2", context)):
        layer = next(module for path, module in model.unet.named_modules() if path.endswith(name))
        width = layer.to_q.in_features
        states = hidden.repeat(1, 1, -(-width // 32))[..., :width]
        results = [processor(layer, states, given) for processor in (AttnProcessor2_0(), PlainAttention())]
        assert_same_bits({"": results[1]}, {"": results[0]})


def test_attention_with_other_parts_stays_the_librarys(model):
    unet = copy.deepcopy(model.unet)
    unet.set_attn_processor(AttnProcessor2_0())
    layer = next(module for path, module in unet.named_modules() if path.endswith("attn2"))
    layer.rescale_output_factor = 2.0
    use_plain_attention(unet)
    assert isinstance(layer.processor, AttnProcessor2_0)
    others = [processor for processor in unet.attn_processors.values() if processor is not layer.processor]
    assert others and all(isinstance(processor, PlainAttention) for processor in others)
    with pytest.raises(ValueError, match="attn2"):
        cross_attention_layers(unet)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("added", ADDED)
@torch.no_grad()
def test_what_was_read_once_predicts_with_the_bits_of_the_context(model, added, recorded):
    noisy, times, context = drawn(2, 4, 16, 16), torch.tensor([3, 700]), drawn(2, 24, 32, seed=1)
    if make := ADDED[added]:
        make(model).inject()
    expected = model.predict(noisy, times, context)
    if recorded:
        AttentionRecorder(model.unet, drawn(3, 24, 32, seed=2)).inject()
    read = model.read(context)
    assert_same_bits({"": model.predict(noisy, times, read)}, {"": expected})
    assert_same_bits({"": model.predict(2 * noisy, times, read)}, {"": model.predict(2 * noisy, times, context)})


def test_what_was_read_of_another_context_makes_a_difference(model):
    """Else the tests above would hold if nobody looked at it."""
    noisy, times = drawn(2, 4, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        one, other = (model.predict(noisy, times, model.read(drawn(2, 24, 32, seed=seed))) for seed in (1, 2))
    assert (one - other).abs().max() > 1e-4


def test_keys_and_values_have_the_gradient_of_the_context(model):
    noisy, times = drawn(2, 4, 16, 16), torch.tensor([3, 700])
    context = drawn(2, 24, 32, seed=1).requires_grad_(True)
    gradients = [
        torch.autograd.grad(model.predict(noisy, times, given).square().sum(), context)[0]
        for given in (context, keys_and_values(model.unet, context))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)

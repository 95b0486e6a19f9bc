"""A tuned UNet and LoRA: in without a trace, out without a trace."""

from __future__ import annotations

import pytest
import torch

from cictl.models.base_files import base_unet_weights
from cictl.models.tuned_unet import AttentionLoRA, LowRank, TunedUNet, attention_projections
from tests.support import assert_same_bits


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([3, 700]), torch.randn(2, 24, 32, generator=generator)


@torch.no_grad()
def predict(model, inputs):
    return model.predict(*inputs)


def lora(model, rank: int = 4) -> AttentionLoRA:
    return AttentionLoRA.untrained(model.unet, rank=rank, seed=0)


def whole(model) -> TunedUNet:
    return TunedUNet(model.unet, base_unet_weights(model.located))


@pytest.mark.parametrize("make", [lora, whole])
def test_before_training_the_unet_gives_what_it_gave_and_afterwards_it_can_be_had_back(model, inputs, make):
    parameters, before = dict(model.unet.named_parameters()), predict(model, inputs)
    content = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    added = make(model)
    added.inject()
    assert torch.equal(predict(model, inputs), before)
    with torch.no_grad():
        for parameter in added.parameters().values():
            parameter.add_(0.1)
    assert (predict(model, inputs) - before).abs().max() > 1e-4
    added.eject()
    assert torch.equal(predict(model, inputs), before)
    after = dict(model.unet.named_parameters())
    assert list(after) == list(parameters) and all(after[name] is parameters[name] for name in parameters)
    assert_same_bits(content, after)


@pytest.mark.parametrize("make", [lora, whole])
def test_what_is_saved_draws_the_same_in_another_unet(model, inputs, make):
    added = make(model)
    with torch.no_grad():
        for index, parameter in enumerate(added.parameters().values()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.05)
    added.inject()
    expected, saved = predict(model, inputs), added.tensors()
    added.eject()
    type(added)(model.unet, saved).inject()
    assert torch.equal(predict(model, inputs), expected)


def test_lora_adds_b_a_to_every_projection_of_both_kinds_of_attention(model, inputs):
    added = lora(model, rank=2)
    names = attention_projections(model.unet)
    assert names == list(added.layers) and len(names) == len(set(names))
    assert {name.split(".attn")[1] for name in names} == {
        f"{kind}.{part}" for kind in "12" for part in ("to_q", "to_k", "to_v", "to_out.0")
    }
    with torch.no_grad():
        for parameter in added.parameters().values():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    added.inject()
    expected = predict(model, inputs)
    added.eject()
    with torch.no_grad():
        for name, layer in added.layers.items():
            assert layer.down.shape[0] == layer.up.shape[1] == 2
            model.unet.get_submodule(name).weight += layer.up @ layer.down
    torch.testing.assert_close(predict(model, inputs), expected, rtol=1e-4, atol=1e-5)


def test_lora_starts_from_the_seed_alone(model):
    torch.manual_seed(1)
    one = lora(model).tensors()
    torch.manual_seed(2)
    assert_same_bits(one, lora(model).tensors())
    other = AttentionLoRA.untrained(model.unet, rank=4, seed=1).tensors()
    starts = [tuple(tensor.flatten().tolist()) for made in (one, other) for name, tensor in made.items() if name.endswith("down")]
    assert len(set(starts)) == len(starts)  # of each layer, and of each seed, another
    down = torch.cat([tensor.flatten() for name, tensor in one.items() if name.endswith("down")])
    assert float(down.std()) == pytest.approx(1 / 4, rel=0.05)
    assert all(tensor.abs().max() == 0 for name, tensor in one.items() if name.endswith("up"))


def test_lora_is_computed_in_fp32_and_added_in_the_precision_of_its_layer():
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.Linear(6, 5).bfloat16()
    down, up, hidden = (torch.randn(shape, generator=generator) for shape in ((2, 6), (5, 2), (3, 6)))
    hidden = hidden.bfloat16()
    with torch.no_grad():
        found, base = LowRank(plain, down, up)(hidden), plain(hidden)
    assert torch.equal(found, base + ((hidden.float() @ down.T) @ up.T).bfloat16())
    assert found.dtype == torch.bfloat16


def test_a_tuned_unet_runs_in_fp32_where_the_rest_runs_in_bf16(located, inputs):
    from cictl.models.stable_diffusion import StableDiffusion

    plain = StableDiffusion.load(located, torch.device("cpu"), torch.float32)
    half = StableDiffusion.load(located, torch.device("cpu"), torch.bfloat16)
    whole(half).inject()
    noisy, times, context = inputs
    assert torch.equal(predict(half, inputs), predict(plain, inputs))
    assert predict(half, (noisy, times, context.bfloat16())).dtype == torch.float32

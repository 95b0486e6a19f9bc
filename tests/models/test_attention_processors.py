"""K, V and K^a, V^a, and the recorder: in without a trace, out without a trace."""

from __future__ import annotations

import pytest
import torch

from cictl.models.attention_layers import cross_attention_layers
from cictl.models.attention_processors import AttentionRecorder, DisentangledContext, TunedCrossAttention
from cictl.models.stable_diffusion import StableDiffusion

N = 2


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(3)
    noisy = torch.randn(N, 4, 16, 16, generator=generator)
    context, auxiliary = (torch.randn(N, 24, 32, generator=generator) for _ in range(2))
    return noisy, torch.tensor([3, 700]), context, auxiliary


def predict(model, noisy, times, context):
    with torch.no_grad():
        return model.predict(noisy, times, context)


def test_layers_are_all_cross_attentions_and_no_self_attention(model):
    layers = cross_attention_layers(model.unet)
    kinds = {name: module.to_k.in_features for name, module in model.unet.named_modules() if hasattr(module, "to_k")}
    assert layers == [name for name in kinds if name.endswith("attn2")]
    assert len(layers) * 2 == len(kinds)
    assert all(kinds[name] == 32 for name in layers)


def test_key_values_of_the_model_are_those_layers_weights(model):
    expected = {f"{layer}.{part}.weight" for layer in cross_attention_layers(model.unet) for part in ("to_k", "to_v")}
    assert model.key_values.keys() == expected
    weights = dict(model.unet.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.key_values.items())


@pytest.mark.parametrize("scale", [None, 0.0, 1.0])
def test_untrained_copies_and_a_plain_context_give_the_bases_output_bit_for_bit(model, inputs, scale):
    noisy, times, context, _ = inputs
    before = predict(model, noisy, times, context)
    TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=scale).inject()
    assert torch.equal(predict(model, noisy, times, context), before)


@pytest.mark.parametrize("masked", [False, True])
def test_lambda_zero_gives_the_bases_output_bit_for_bit(model, inputs, masked):
    noisy, times, context, auxiliary = inputs
    before = predict(model, noisy, times, context)
    TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=0.0).inject()
    mask = torch.arange(24).expand(N, 24) < 3 if masked else None
    assert torch.equal(predict(model, noisy, times, DisentangledContext(context, auxiliary, mask)), before)


def test_a_layer_with_untrained_copies_and_the_same_context_twice_doubles_the_attention(model, inputs):
    _, _, context, _ = inputs
    layer = cross_attention_layers(model.unet)[0]
    attention = model.unet.get_submodule(layer)
    hidden = torch.randn(N, 10, attention.to_q.in_features, generator=torch.Generator().manual_seed(0))
    bias = attention.to_out[0].bias
    with torch.no_grad():
        plain = attention(hidden, context) - bias
        TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=1.0).inject()
        both = attention(hidden, DisentangledContext(context, context, None)) - bias
    torch.testing.assert_close(both, 2 * plain, rtol=1e-4, atol=1e-6)


def test_the_auxiliary_context_and_its_mask_matter_when_lambda_is_not_zero(model, inputs):
    noisy, times, context, auxiliary = inputs
    TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=1.0).inject()
    mask = torch.arange(24).expand(N, 24) < 3
    outputs = [
        predict(model, noisy, times, DisentangledContext(context, auxiliary, None)),
        predict(model, noisy, times, DisentangledContext(context, auxiliary, mask)),
        predict(model, noisy, times, DisentangledContext(context, context, None)),
        predict(model, noisy, times, context),
    ]
    for i, one in enumerate(outputs):
        for two in outputs[:i]:
            assert (one - two).abs().max() > 1e-4


def test_tuned_weights_do_what_changing_the_bases_weights_would_do(model, inputs):
    noisy, times, context, _ = inputs
    generator = torch.Generator().manual_seed(0)
    tuned = {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in model.key_values.items()}
    attention = TunedCrossAttention(model.unet, tuned)
    attention.inject()
    injected = predict(model, noisy, times, context)
    attention.eject()
    model.unet.load_state_dict(tuned, strict=False)
    torch.testing.assert_close(injected, predict(model, noisy, times, context), rtol=1e-5, atol=1e-6)


def test_a_change_below_the_rounding_of_bf16_is_not_lost_where_the_rest_runs_in_it(located, inputs):
    half = StableDiffusion.load(located, torch.device("cpu"), torch.bfloat16)
    coarse = {name: weight.bfloat16().float() for name, weight in half.key_values.items()}
    fine = {name: weight * (1 + 2**-10) for name, weight in coarse.items()}
    assert all(torch.equal(fine[name].bfloat16().float(), weight) for name, weight in coarse.items())
    drawn, noted = [], []
    for weights in (coarse, fine):
        attention = TunedCrossAttention(half.unet, weights)
        recorder = AttentionRecorder(half.unet, inputs[3].bfloat16())
        for added in (attention, recorder):
            added.inject()
        drawn.append(predict(half, *inputs[:3]))
        noted.append(torch.cat([layer.flatten() for layer in recorder.maps(16, 16)]))
        for added in (recorder, attention):
            added.eject()
    assert not torch.equal(*drawn) and not torch.equal(*noted)


def test_ejecting_gives_the_base_back_exactly(model, inputs):
    noisy, times, context, auxiliary = inputs
    state = {key: value.clone() for key, value in model.unet.state_dict().items()}
    processors = dict(model.unet.attn_processors)
    before = predict(model, noisy, times, context)
    attention = TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=1.0)
    attention.inject()
    with torch.no_grad():
        for parameter in attention.parameters().values():
            parameter += 1
    assert not torch.equal(predict(model, noisy, times, DisentangledContext(context, auxiliary, None)), before)
    attention.eject()
    after = model.unet.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)
    assert all(model.unet.attn_processors[name] is processor for name, processor in processors.items())
    assert torch.equal(predict(model, noisy, times, context), before)


def test_the_bases_weights_share_no_memory_with_what_is_trained(model):
    attention = TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=1.0)
    parameters = list(attention.parameters().values())
    addresses = {parameter.data_ptr() for parameter in parameters}
    assert len(addresses) == len(parameters)
    assert not addresses & {tensor.data_ptr() for tensor in [*model.unet.state_dict().values(), *model.key_values.values()]}


def test_auxiliary_weights_start_as_copies_and_are_never_among_what_is_saved(model):
    attention = TunedCrossAttention(model.unet, model.key_values, auxiliary_scale=1.0)
    for layer in attention.layers.values():
        assert torch.equal(layer.auxiliary_key, layer.key)
        assert torch.equal(layer.auxiliary_value, layer.value)
        with torch.no_grad():
            layer.auxiliary_key += 1
    saved = attention.tensors()
    assert saved.keys() == model.key_values.keys()
    assert all(torch.equal(saved[name], model.key_values[name]) for name in saved)


@pytest.mark.parametrize(
    ("part", "other"), [("to_k.bias", torch.nn.Parameter(torch.zeros(1))), (".norm_cross", True), (".residual_connection", True)]
)
def test_a_layer_that_stable_diffusion_1_lacks_is_refused(model, part, other):
    owner, _, name = part.rpartition(".")
    setattr(model.unet.get_submodule(cross_attention_layers(model.unet)[0]).get_submodule(owner), name, other)
    with pytest.raises(ValueError, match="attn2"):
        TunedCrossAttention(model.unet, model.key_values)


# -- the recorder -----------------------------------------------------------------------------------


def tuned_weights(model):
    generator = torch.Generator().manual_seed(0)
    return {name: weight + 0.1 * torch.randn(weight.shape, generator=generator) for name, weight in model.key_values.items()}


@pytest.mark.parametrize("tuned", [False, True])
def test_recording_changes_no_bit_and_ejecting_gives_the_processors_back(model, inputs, tuned):
    noisy, times, context, probe = inputs
    if tuned:
        TunedCrossAttention(model.unet, tuned_weights(model)).inject()
    processors = dict(model.unet.attn_processors)
    state = list(model.unet.state_dict())
    before = predict(model, noisy, times, context)
    recorder = AttentionRecorder(model.unet, probe)
    recorder.inject()
    assert torch.equal(predict(model, noisy, times, context), before)
    recorder.eject()
    assert all(model.unet.attn_processors[name] is processor for name, processor in processors.items())
    assert list(model.unet.state_dict()) == state
    assert torch.equal(predict(model, noisy, times, context), before)
    assert all(layer.calls == 1 for layer in recorder.layers.values())  # and nothing is noted any more


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("rows", [slice(None), slice(-1, None)])
def test_what_is_noted_is_the_mean_over_heads_rows_and_calls_in_loops(model, inputs, tuned, rows):
    noisy, times, context, probe = inputs
    weights = tuned_weights(model) if tuned else model.key_values
    if tuned:
        TunedCrossAttention(model.unet, weights).inject()
    layers = cross_attention_layers(model.unet)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
    hooks = [
        model.unet.get_submodule(name).register_forward_pre_hook(lambda module, args, name=name: seen[name].append(args[0]))
        for name in layers
    ]
    recorder = AttentionRecorder(model.unet, probe, rows)
    recorder.inject()
    for level in (1, 2):  # two calls
        predict(model, noisy * level, times, context)
    recorder.eject()
    for hook in hooks:
        hook.remove()
    for name, found in zip(layers, recorder.maps(16, 16), strict=True):
        attention = model.unet.get_submodule(name)
        heads, expected, count = attention.heads, 0.0, 0
        for hidden in seen[name]:
            for row in range(N)[rows]:
                query = hidden[row] @ attention.to_q.weight.T
                keys = probe @ weights[f"{name}.to_k.weight"].T
                size = query.shape[-1] // heads
                for head in range(heads):
                    part = slice(head * size, (head + 1) * size)
                    scores = torch.einsum("ld,ptd->plt", query[:, part], keys[:, :, part]) / size**0.5
                    exponentials = scores.exp()
                    expected = expected + exponentials / exponentials.sum(-1, keepdim=True)
                    count += 1
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), expected / count, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(found.sum(2 - 1), torch.ones(N, *found.shape[-2:]))


@pytest.mark.parametrize(("size", "halved"), [((10, 26), (5, 13)), ((11, 7), (6, 4))])
def test_a_layers_map_has_the_form_of_the_picture(model, size, halved):
    recorder = AttentionRecorder(model.unet, torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(0)))
    recorder.inject()
    context = torch.randn(1, 24, 32, generator=torch.Generator().manual_seed(1))
    predict(model, torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(2)), torch.tensor([5]), context)
    recorder.eject()
    assert {tuple(layer.shape) for layer in recorder.maps(*size)} == {(1, 24, *halved)}

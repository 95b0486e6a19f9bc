"""The other methods: each loss against a naive one, what is trained, and that nothing else is moved."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cictl.config import CustomDiffusionConfig, DisenBoothConfig, DreamBoothConfig
from cictl.errors import ModelAccessError, UsageError
from cictl.methods.custom_diffusion import CustomDiffusion
from cictl.methods.disenbooth import DisenBooth, ImageAdapter
from cictl.methods.dreambooth import DreamBooth
from cictl.methods.textual_inversion import OBJECT_PROMPTS, STYLE_PROMPTS, TextualInversion
from cictl.models.attention_layers import cross_attention_layers
from cictl.models.base_files import base_unet_weights
from cictl.models.concept_tokens import initial_tokens
from tests.support import batch_of, encoded

PHOTOGRAPHS = encoded()
PROMPT, CLASS = "a photo of sks dog", "a photo of dog"


def token(model):
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=1, start="dog", keys=(), auxiliary_vectors=0,
        auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    return tokens


def with_class(batch):
    return dataclasses.replace(batch, class_pictures=batch_of(encoded(5), step=3))


@torch.no_grad()
def squared(model, batch, prompts):
    """The squared error of each element, computed sample by sample."""
    errors = []
    for index, prompt in enumerate(prompts):
        one = slice(index, index + 1)
        alpha = model.alphas_cumprod[batch.timesteps[one]].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * batch.latents[one] + (1 - alpha).sqrt() * batch.noise[one]
        context = prompt if isinstance(prompt, torch.Tensor) else model.encode_text(model.tokenize([prompt]))
        errors.append((model.unet(noisy, batch.timesteps[one], encoder_hidden_states=context).sample - batch.noise[one]) ** 2)
    return torch.cat(errors)


def test_textual_inversions_prompts_are_the_papers_numbers_of_them():
    assert (len(OBJECT_PROMPTS), len(STYLE_PROMPTS)) == (27, 19)
    assert len(set(OBJECT_PROMPTS)) == 27
    assert all(prompt.count("S*") == 1 for prompt in (*OBJECT_PROMPTS, *STYLE_PROMPTS))


def test_textual_inversions_loss_is_the_denoising_with_the_drawn_prompts_and_moves_the_token_alone(model):
    method = TextualInversion(model, token(model), ["a photo of S*", "a red S*", "S* on the beach"])
    batch = dataclasses.replace(batch_of(PHOTOGRAPHS), choices=torch.tensor([0.1, 0.5, 0.9, 0.34]))
    texts = ["a photo of <my-teapot>", "a red <my-teapot>", "<my-teapot> on the beach", "a red <my-teapot>"]
    loss = method.loss(batch)
    torch.testing.assert_close(loss.total.detach(), squared(model, batch, texts).mean())
    loss.total.backward()
    assert list(method.trainable()) == ["concept"] and method.tokens.concept.grad.norm() > 0
    others = [p for part in (model.unet, model.text_encoder) for p in part.parameters() if p is not method.tokens.concept]
    assert all(parameter.grad is None for parameter in others if parameter.numel())
    assert list(method.result()) == ["concept"]


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_dreambooths_loss_is_that_of_the_photographs_plus_the_weight_times_that_of_class_pictures(model, weight):
    method = DreamBooth(model, base_unet_weights(model.located), PROMPT, CLASS, DreamBoothConfig(prior_weight=weight))
    batch = with_class(batch_of(PHOTOGRAPHS))
    diffusion = squared(model, batch, [PROMPT] * 4).mean()
    prior = squared(model, batch.class_pictures, [CLASS] * 4).mean()
    loss = method.loss(batch)
    torch.testing.assert_close(loss.terms, {"diffusion": diffusion, "prior": prior})
    torch.testing.assert_close(loss.total.detach(), diffusion + weight * prior)
    torch.testing.assert_close(method.loss(batch_of(PHOTOGRAPHS)).total.detach(), diffusion)


def test_dreambooth_moves_every_weight_of_the_unet_and_none_of_the_text_encoder(model):
    base = {name: weight.clone() for name, weight in model.unet.named_parameters()}
    method = DreamBooth(model, base_unet_weights(model.located), PROMPT, CLASS, DreamBoothConfig())
    assert method.trainable().keys() == base.keys() == method.result().keys()
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert all(weight.grad is not None for weight in method.trainable().values())
    assert all(weight.grad is None for weight in model.text_encoder.parameters())
    method.unet.eject()
    assert all(torch.equal(weight, base[name]) for name, weight in model.unet.named_parameters())


def custom(model, masks=None, **settings) -> CustomDiffusion:
    names = ["photo of a <my-teapot> dog", "very small photo of a <my-teapot> dog", "zoomed in photo of a <my-teapot> dog"]
    masks = torch.ones(3, 1, 16, 16) if masks is None else masks
    return CustomDiffusion(model, token(model), names, masks, CLASS, CustomDiffusionConfig(**settings))


def test_custom_diffusions_loss_is_that_under_the_masks_with_the_prompts_of_the_views(model):
    masks = (torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    method = custom(model, masks, prior_weight=0.5)
    batch = with_class(batch_of(PHOTOGRAPHS))
    prompts = ["photo of a <my-teapot> dog", "very small photo of a <my-teapot> dog", "zoomed in photo of a <my-teapot> dog"]
    errors = squared(model, batch, [prompts[row] for row in batch.rows])
    means = []
    for error, row in zip(errors, batch.rows, strict=True):
        kept = [float(error[c, y, x]) for c in range(4) for y in range(16) for x in range(16) if masks[row, 0, y, x]]
        means.append(sum(kept) / len(kept))
    prior = squared(model, batch.class_pictures, [CLASS] * 4).mean()
    loss = method.loss(batch)
    torch.testing.assert_close(loss.terms["diffusion"], torch.tensor(sum(means) / 4))
    torch.testing.assert_close(loss.total.detach(), torch.tensor(sum(means) / 4) + 0.5 * prior)


def test_custom_diffusion_moves_the_token_and_all_k_v_and_its_result_holds_nothing_else(model):
    method = custom(model)
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert all(weight.grad.norm() > 0 for weight in method.trainable().values())
    layers = cross_attention_layers(model.unet)
    assert method.result().keys() == {"concept", *(f"{layer}.to_{part}.weight" for layer in layers for part in "kv")}
    trained = {id(weight) for weight in method.trainable().values()}
    assert all(weight.grad is None for weight in model.unet.parameters() if id(weight) not in trained)


def test_the_first_position_of_a_context_sends_no_gradient_and_gives_the_same_picture(model):
    method = custom(model)
    layer = method.attention.layers[cross_attention_layers(model.unet)[0]]
    attention = model.unet.get_submodule(cross_attention_layers(model.unet)[0])
    hidden = torch.randn(2, 10, attention.to_q.in_features)
    gradients = []
    for position in (0, 1):
        context = torch.zeros(2, 24, 32)
        context[:, position] = 1.0  # K, V of the other positions are zero whatever the weights are
        layer.zero_grad()
        attention(hidden, context).sum().backward()
        gradients.append(float(layer.value.grad.norm()))
    assert gradients[0] == 0 and gradients[1] > 0
    context = torch.randn(2, 24, 32)
    with torch.no_grad():
        detached = attention(hidden, context)
        layer.detach_first = False
        assert torch.equal(attention(hidden, context), detached)


@pytest.mark.parametrize("samples", [1, 4])
def test_disenbooths_loss_is_that_of_a_loop_over_the_samples_at_any_batch_size(model, samples):
    settings = DisenBoothConfig(weak_weight=0.3, contrast_weight=0.7, batch_size=samples)
    method = DisenBooth(model, PHOTOGRAPHS, PROMPT, settings, seed=0)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    batch = batch_of(PHOTOGRAPHS, samples=range(samples))
    with torch.no_grad():
        context = model.encode_text(model.tokenize([PROMPT]))
        own = []
        for index in batch.photographs:
            gated = PHOTOGRAPHS.embeddings[index] / (1 + torch.exp(-method.adapter.mask))
            first, _, second = method.adapter.mlp
            own.append(second.weight @ (first.weight @ gated + first.bias).clamp(min=0) + second.bias + gated)
    diffusion = squared(model, batch, [context + one for one in own]).mean()
    weak = squared(model, batch, [context] * samples).mean()
    mean = context[0].mean(dim=0)
    contrast = sum(float(mean @ one / (mean.norm() * one.norm())) for one in own) / samples
    loss = method.loss(batch)
    torch.testing.assert_close(loss.terms, {"diffusion": diffusion, "weak": weak, "contrast": torch.tensor(contrast)})
    torch.testing.assert_close(loss.total.detach(), diffusion + 0.3 * weak + 0.7 * torch.tensor(contrast))


def test_disenbooth_moves_lora_and_adapter_and_leaves_the_adapter_behind(model):
    method = DisenBooth(model, PHOTOGRAPHS, PROMPT, DisenBoothConfig(), seed=0)
    method.loss(batch_of(PHOTOGRAPHS)).total.backward()
    assert {name.partition(".")[0] for name in method.trainable()} > {"adapter"}
    for name, parameter in method.trainable().items():
        assert parameter.grad is not None, name
        assert parameter.grad.norm() > 0 or name.endswith(".down"), name  # A waits for B, which starts at zero
    assert method.result().keys() == {name for name in method.trainable() if not name.startswith("adapter")}
    trained = {id(weight) for weight in method.trainable().values()}
    assert all(weight.grad is None for weight in model.unet.parameters() if id(weight) not in trained)


def test_the_adapter_starts_from_the_seed_alone_and_lets_half_of_the_embedding_through():
    torch.manual_seed(1)
    one = ImageAdapter(32, seed=0).state_dict()
    torch.manual_seed(2)
    other = ImageAdapter(32, seed=0)
    assert all(torch.equal(one[name], tensor) for name, tensor in other.state_dict().items())
    with torch.no_grad():
        for parameter in other.mlp.parameters():
            parameter.zero_()
    embedding = torch.randn(2, 32)
    torch.testing.assert_close(other(embedding), embedding / 2)


def test_the_adapters_layers_start_apart_uniform_within_the_root_of_their_width():
    first, _, second = ImageAdapter(64, seed=0).mlp
    weights = [linear.weight.detach() for linear in (first, second, ImageAdapter(64, seed=1).mlp[0])]
    for index, weight in enumerate(weights):
        assert float(weight.abs().max()) == pytest.approx(1 / 8, rel=0.01) and weight.abs().max() <= 1 / 8
        assert float(weight.std()) == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
        assert not any(torch.equal(weight, other) for other in weights[:index])


def test_the_contrast_moves_the_adapter_and_nothing_else(model):
    gradients = []
    for weight in (0.0, 1.0):
        method = DisenBooth(model, PHOTOGRAPHS, PROMPT, DisenBoothConfig(contrast_weight=weight), seed=0)
        method.loss(batch_of(PHOTOGRAPHS)).total.backward()
        gradients.append({name: parameter.grad for name, parameter in method.trainable().items()})
        method.lora.eject()
    for name, without in gradients[0].items():
        assert torch.equal(gradients[1][name], without) != name.startswith("adapter."), name


def test_disenbooth_starts_from_its_seed(model):
    starts = []
    for seed in (0, 1):
        method = DisenBooth(model, PHOTOGRAPHS, PROMPT, DisenBoothConfig(), seed=seed)
        starts.append({name: parameter.detach() for name, parameter in method.trainable().items()})
        method.lora.eject()
    for name, start in starts[0].items():
        assert torch.equal(start, starts[1][name]) == (name == "adapter.mask" or name.endswith(".up")), name  # which are zero


def test_disenbooth_knows_the_embedding_of_a_photograph_in_whatever_view_it_is_seen(model):
    views = dataclasses.replace(
        PHOTOGRAPHS, mean=PHOTOGRAPHS.mean.repeat_interleave(2, 0), std=PHOTOGRAPHS.std.repeat_interleave(2, 0), views=2
    )
    method = DisenBooth(model, views, PROMPT, DisenBoothConfig(), seed=0)
    drawn = batch_of(views)
    assert not torch.equal(drawn.rows, drawn.photographs)
    with torch.no_grad():
        seen = dataclasses.replace(drawn, rows=drawn.photographs)
        assert torch.equal(method.loss(drawn).total, method.loss(seen).total)


def test_disenbooth_refuses_embeddings_of_another_width(model):
    narrow = dataclasses.replace(PHOTOGRAPHS, embeddings=torch.randn(3, 16))
    with pytest.raises(ModelAccessError, match="16 numbers, to the text encoder's, which are 32") as caught:
        DisenBooth(model, narrow, PROMPT, DisenBoothConfig(), seed=0)
    assert caught.value.slug == "clip-of-another-width"


@pytest.mark.parametrize(("make", "passes"), [("textual", 1), ("dreambooth", 2), ("custom", 2), ("disenbooth", 2)])
def test_what_a_method_is_judged_by_is_a_term_of_its_loss_bit_for_bit_from_one_pass_through_the_unet(model, make, passes):
    makers = {
        "textual": lambda: TextualInversion(model, token(model), ["a photo of S*", "a red S*"]),
        "dreambooth": lambda: DreamBooth(model, base_unet_weights(model.located), PROMPT, CLASS, DreamBoothConfig()),
        "custom": lambda: custom(model),
        "disenbooth": lambda: DisenBooth(model, PHOTOGRAPHS, PROMPT, DisenBoothConfig(), seed=0),
    }
    method, batch = makers[make](), with_class(batch_of(PHOTOGRAPHS))
    calls: list[object] = []
    model.unet.register_forward_hook(lambda *call: calls.append(call))
    term = method.loss(batch).terms["diffusion"]
    assert len(calls) == passes
    with torch.no_grad():
        assert torch.equal(method.diffusion(batch), term)
    assert len(calls) == passes + 1


@pytest.mark.parametrize("make", ["textual", "dreambooth", "dreambooth's class", "custom", "custom's class", "disenbooth"])
def test_a_prompt_that_the_model_would_cut_is_refused(model, make):
    long, masks = "a photo of the " * 8, torch.ones(1, 1, 16, 16)
    makers = {
        "textual": lambda: TextualInversion(model, token(model), [f"{long} S*"]),
        "dreambooth": lambda: DreamBooth(model, base_unet_weights(model.located), long, CLASS, DreamBoothConfig()),
        "dreambooth's class": lambda: DreamBooth(model, base_unet_weights(model.located), PROMPT, long, DreamBoothConfig()),
        "custom": lambda: CustomDiffusion(model, token(model), [long], masks, CLASS, CustomDiffusionConfig()),
        "custom's class": lambda: CustomDiffusion(model, token(model), [PROMPT], masks, long, CustomDiffusionConfig()),
        "disenbooth": lambda: DisenBooth(model, PHOTOGRAPHS, long, DisenBoothConfig(), seed=0),
    }
    with pytest.raises(UsageError, match="it would lose"):
        makers[make]()

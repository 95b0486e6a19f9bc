"""Samplers against diffusers' own, seeds, and batches."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from cictl.config.schema import MOST_STEPS
from cictl.engine.sampling import initial_noise, make_scheduler, sample
from cictl.functional.losses import prediction_target
from cictl.models.attention_layers import cross_attention_layers
from cictl.models.convolutions import multiply_at_few_positions
from cictl.models.stable_diffusion import StableDiffusion
from tests.pretended_graph import pretended_graphs

SAMPLERS = ["ddim", "dpm++", "euler", "unipc"]
SCHEDULES = {
    "noise": {},
    "velocity": {"prediction_type": "v_prediction"},
    "velocity down to pure noise": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "betas in a list": {"trained_betas": torch.linspace(1e-4, 0.02, 1000).tolist()},
}


@pytest.fixture
def contexts(model):
    with torch.no_grad():
        encoded = model.encode_text(model.tokenize(["a photo of cat", "a red dog", ""]))
    return encoded[:2], encoded[2:]


def draw(model, contexts, seeds, **settings):
    context, negative = contexts
    rows = context[[seed % 2 for seed in seeds]]
    return sample(model, rows, negative, seeds, size=(64, 64), **{"steps": 4, **settings})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_bit_for_bit_if_the_unet_is_recorded_and_replayed(model, contexts, sampler, monkeypatch):
    expected = draw(model, contexts, [0, 1], sampler=sampler)
    with pretended_graphs(monkeypatch) as graphs:
        found = draw(model, contexts, [0, 1], sampler=sampler, record=True)
    assert torch.equal(found, expected)
    assert [graph.replays for graph in graphs] == [3]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_is_the_same_whatever_the_batch(model, contexts, sampler):
    together = draw(model, contexts, [0, 1, 2], sampler=sampler)
    alone = torch.cat([draw(model, contexts, [seed], sampler=sampler) for seed in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().mean() > 0.1


def test_convolutions_as_products_draw_the_same(model, contexts, located, monkeypatch):
    """A CPU's large convolutions are products in Stable Diffusion; here all are, since none of the tiny model is large."""
    changed: list[str] = []

    def multiply(unet) -> None:
        changed.extend(multiply_at_few_positions(unet, least_weights=0))

    monkeypatch.setattr("cictl.models.stable_diffusion.multiply_at_few_positions", multiply)
    multiplied = StableDiffusion.load(located, torch.device("cpu"), torch.float32)
    assert {name.partition(".")[0] for name in changed} >= {"down_blocks", "mid_block", "up_blocks"}
    drawn, expected = (draw(one, contexts, [0, 1]) for one in (multiplied, model))
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-4)
    assert not torch.equal(drawn, expected)  # the sums are added in another order


@pytest.mark.parametrize("changes", SCHEDULES.values(), ids=SCHEDULES.keys())
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_clean_latents_where_the_prediction_is_right(model, sampler, changes):
    """With what the base's own schedule wants of fixed latents as prediction, each sampler must arrive at the latents."""
    model.scheduler_config = dict(DDIMScheduler.from_config({**model.scheduler_config, **changes}).config)
    alphas = DDIMScheduler.from_config(model.scheduler_config).alphas_cumprod
    torch.testing.assert_close(make_scheduler(sampler, model.scheduler_config).alphas_cumprod, alphas, rtol=0, atol=1e-6)
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(9))

    def oracle(noisy, timestep, context):
        alpha = alphas[int(timestep)]
        noise = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        return prediction_target(clean, noise, alpha.view(1), model.scheduler_config["prediction_type"])

    model.predict = oracle
    context = torch.zeros(1, 24, 32)
    for steps in (20, MOST_STEPS):
        found = sample(model, context, context, [0], size=(64, 64), steps=steps, sampler=sampler, guidance=1.0)
        assert (found - clean).abs().mean() < 0.05


def test_ddim_is_guided_as_in_a_naive_loop(model, contexts):
    context, negative = contexts
    scheduler = DDIMScheduler.from_pretrained(model.located.folder, subfolder="scheduler")
    scheduler.set_timesteps(5)
    latents = initial_noise(7, (4, 16, 16)).unsqueeze(0)
    with torch.no_grad():
        for time in scheduler.timesteps:
            unconditional, conditional = (model.predict(latents, time, c) for c in (negative, context[:1]))
            prediction = unconditional + 3.0 * (conditional - unconditional)
            latents = scheduler.step(prediction, time, latents).prev_sample
    ours = sample(model, context[:1], negative, [7], size=(64, 64), steps=5, guidance=3.0)
    torch.testing.assert_close(ours, latents, rtol=1e-4, atol=1e-5)


def test_guidance_of_one_does_not_ask_for_the_negative_prompt(model, contexts):
    context, negative = contexts
    one = sample(model, context[:1], negative, [0], size=(64, 64), steps=3, guidance=1.0)
    other = sample(model, context[:1], negative * math.nan, [0], size=(64, 64), steps=3, guidance=1.0)
    assert torch.equal(one, other)


def test_guidance_of_nothing_draws_what_the_negative_prompt_says(model, contexts):
    context, negative = contexts
    none = sample(model, context[:1], negative, [0], size=(64, 64), steps=3, guidance=0.0)
    torch.testing.assert_close(none, sample(model, negative, negative, [0], size=(64, 64), steps=3, guidance=1.0))


def test_the_negative_prompt_and_guidance_matter(model, contexts):
    context, negative = contexts
    pictures = [
        sample(model, context[:1], away, [0], size=(64, 64), steps=3, guidance=guidance)
        for away, guidance in ((negative, 5.0), (context[1:], 5.0), (negative, 2.0))
    ]
    assert (pictures[0] - pictures[1]).abs().max() > 1e-4
    assert (pictures[0] - pictures[2]).abs().max() > 1e-4


def test_keys_and_values_of_the_prompts_are_computed_once_for_all_steps(model, contexts):
    context, negative = contexts
    calls = []
    for name, module in model.unet.named_modules():
        if name.endswith("attn2.to_k"):
            module.register_forward_hook(lambda *args, name=name: calls.append(name))
    sample(model, context, negative, [0, 1], size=(64, 64), steps=4)
    assert sorted(calls) == sorted(f"{layer}.to_k" for layer in cross_attention_layers(model.unet))


def test_noise_depends_on_the_seed_alone():
    torch.manual_seed(0)
    one = initial_noise(3, (4, 8, 8))
    torch.manual_seed(1)
    assert torch.equal(initial_noise(3, (4, 8, 8)), one)
    assert not torch.equal(initial_noise(4, (4, 8, 8)), one)


def test_each_denoising_step_is_told(model, contexts):
    told = []
    draw(model, contexts, [0], steps=6, after_step=told.append)
    assert told == [1, 2, 3, 4, 5, 6]

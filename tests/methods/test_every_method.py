"""What holds for every method."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler

from tests.methods.support import METHODS, PHOTOGRAPHS, make
from tests.support import batch_of


def batch(step: int = 0):
    return dataclasses.replace(batch_of(PHOTOGRAPHS, step=step), class_pictures=batch_of(PHOTOGRAPHS, step=step + 9))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", METHODS)
def test_the_right_prediction_costs_nothing_be_it_noise_or_velocity(name, kind, model, clip, monkeypatch):
    method, drawn = make(name, model, clip), batch()
    model.scheduler_config = {**model.scheduler_config, "prediction_type": kind}
    scheduler = DDIMScheduler.from_config(model.scheduler_config)
    wanted = drawn.noise if kind == "epsilon" else scheduler.get_velocity(drawn.latents, drawn.noise, drawn.timesteps)
    noisy = scheduler.add_noise(drawn.latents, drawn.noise, drawn.timesteps)

    def right(given, timesteps, context):
        torch.testing.assert_close(given, noisy)
        assert torch.equal(timesteps, drawn.timesteps)
        return wanted

    monkeypatch.setattr(model, "predict", right)
    assert float(method.diffusion(drawn)) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("with_class", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_no_graph_behind_and_needs_none_of_the_step_before(name, with_class, model, clip):
    method = make(name, model, clip)
    for step in range(2):
        drawn = batch(step) if with_class else batch_of(PHOTOGRAPHS, step=step)
        loss = method.loss(drawn)
        assert not any(term.requires_grad for term in loss.terms.values())
        loss.total.backward()
    assert not any(tensor.requires_grad for tensor in method.result().values())

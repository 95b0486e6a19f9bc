"""The two ends of the ways to draw: off is the paper's way, and nothing of a change is the base, bit for bit."""

from __future__ import annotations

import pytest
import torch

from cictl.workflow.concept import find_concept
from cictl.workflow.drawing import install, interpolate, led_away
from tests.support import left_by, silent

WEIGHTS = {
    dtype: {name: torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed, name in enumerate("ab")}
    for dtype in (torch.float32, torch.float16)
}


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_weights_are_the_base_s_at_0_and_the_tuned_ones_at_1_bit_for_bit(dtype):
    base, tuned = WEIGHTS[dtype], {name: weight.float() + 0.01 for name, weight in WEIGHTS[dtype].items()}
    assert interpolate(never, tuned, 1.0) is tuned
    none = interpolate(lambda: base, tuned, 0.0)
    assert none.keys() == tuned.keys()
    assert all(weight.dtype == torch.float32 and torch.equal(weight, base[name].float()) for name, weight in none.items())


def never():
    raise AssertionError("all of the change asks for no weight of the base")


@pytest.mark.parametrize("strength", [0.25, 0.75, 1.5])
def test_weights_between_and_beyond_are_on_the_line_through_both(strength):
    base, tuned = WEIGHTS[torch.float32], {name: 2 * weight - 1 for name, weight in WEIGHTS[torch.float32].items()}
    for name, weights in interpolate(lambda: base, tuned, strength).items():
        for given, own, changed in zip(weights.flatten(), base[name].flatten(), tuned[name].flatten(), strict=True):
            assert float(given) == pytest.approx(float(own) + strength * (float(changed) - float(own)), abs=1e-5)


def test_all_of_stage_2_draws_with_the_very_numbers_that_training_left(trained, model):
    install(find_concept(trained, "finetune", silent), model, 1.0)
    tuned = {
        name: weight
        for name, weight in left_by(trained, "finetune").result.items()
        if name.endswith((".to_k.weight", ".to_v.weight"))
    }
    assert tuned
    for name, weight in tuned.items():
        layer, part = name.removesuffix(".weight").rsplit(".to_", 1)
        processor = model.unet.get_submodule(layer).processor
        assert torch.equal(processor.key if part == "k" else processor.value, weight)


def test_nothing_avoided_leaves_the_negative_prompt_as_it_is(trained, model):
    concept, negative = find_concept(trained, "finetune", silent), torch.randn(1, 4, 3)
    assert led_away(model, concept, negative, 0.0) is negative

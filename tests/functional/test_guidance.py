"""Guidance against the formulas, number by number."""

from __future__ import annotations

import pytest
import torch

from cictl.functional.guidance import classifier_free_guidance, steer_away


def test_guidance_goes_from_the_one_prediction_through_the_other():
    generator = torch.Generator().manual_seed(0)
    none, prompt = torch.randn(2, 3, 4, 4, 4, generator=generator)
    torch.testing.assert_close(classifier_free_guidance(none, prompt, 1.0), prompt)
    assert torch.equal(classifier_free_guidance(none, prompt, 0.0), none)
    for index in ((0, 1, 2, 3), (2, 3, 0, 1)):
        expected = float(none[index]) + 5 * (float(prompt[index]) - float(none[index]))
        assert float(classifier_free_guidance(none, prompt, 5.0)[index]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [0.3, 1.5])
def test_what_is_led_away_from_is_mixed_with_the_mean_over_the_photographs(weight):
    generator = torch.Generator().manual_seed(0)
    negative, auxiliary = torch.randn(1, 5, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)
    assert torch.equal(steer_away(negative, auxiliary, 0.0), negative)
    assert torch.equal(steer_away(negative, auxiliary, 1.0), auxiliary.mean(dim=0, keepdim=True))
    mixed = steer_away(negative, auxiliary, weight)
    assert mixed.shape == negative.shape
    for token in range(5):
        for d in range(4):
            mean = sum(float(auxiliary[i, token, d]) for i in range(3)) / 3
            expected = float(negative[0, token, d]) + weight * (mean - float(negative[0, token, d]))
            assert float(mixed[0, token, d]) == pytest.approx(expected, abs=1e-5)

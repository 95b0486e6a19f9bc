"""Eq. 1 and Eq. 2 against naive loops, noise and targets against diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from cictl.functional.losses import contrastive_loss, diffuse, ldm_loss, masked_ldm_loss, prediction_target


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def naive_contrastive(text: torch.Tensor, images: torch.Tensor, temperature: float) -> float:
    def cosine(a: list[float], b: list[float]) -> float:
        norm = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / norm

    total = 0.0
    for i, t in enumerate(text.tolist()):
        own = math.exp(cosine(t, images[i].tolist()) / temperature)
        total -= math.log(own / sum(math.exp(cosine(t, image.tolist()) / temperature) for image in images))
    return total


def test_eq_1_is_the_mean_of_the_squares():
    target, prediction = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    squares = [(t - p) ** 2 for t, p in zip(target.flatten().tolist(), prediction.flatten().tolist(), strict=True)]
    assert ldm_loss(target, prediction).item() == pytest.approx(sum(squares) / len(squares), rel=1e-6)


def test_eq_1_under_a_mask_of_ones_is_eq_1_and_each_sample_counts_the_same_however_much_of_it_is_left():
    target, prediction = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    torch.testing.assert_close(masked_ldm_loss(target, prediction, torch.ones(2, 1, 4, 5)), ldm_loss(target, prediction))
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, 0, 1, 2] = 1
    mask[1, 0, :2] = 1
    squares = ((target - prediction) ** 2).tolist()
    one = [squares[0][c][1][2] for c in range(3)]
    other = [squares[1][c][y][x] for c in range(3) for y in range(2) for x in range(5)]
    expected = (sum(one) / 3 + sum(other) / 30) / 2
    assert masked_ldm_loss(target, prediction, mask).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "loss", [ldm_loss, lambda target, prediction: masked_ldm_loss(target, prediction, torch.ones(1, 1, 1, 1))]
)
def test_eq_1_is_computed_in_fp32(loss):
    target = torch.full((1, 1, 1, 1), 0.01, dtype=torch.float16)
    prediction = torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16)  # the square is infinite in fp16, and 0.01 would be lost
    found = loss(target, prediction)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx((300 - target.item()) ** 2, rel=1e-7)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("temperature", [1.0, 0.2, 0.07, 3.0])
def test_eq_2_equals_a_naive_double_loop(count: int, temperature: float):
    text, images = random(count, 8), random(count, 8, seed=1)
    assert contrastive_loss(text, images, temperature).item() == pytest.approx(
        naive_contrastive(text, images, temperature), rel=1e-5, abs=1e-6
    )


def test_eq_2_without_a_temperature_is_eq_2_as_written():
    text, images = random(4, 8), random(4, 8, seed=1)
    assert contrastive_loss(text, images).item() == pytest.approx(naive_contrastive(text, images, 1.0), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_eq_2_of_equal_embeddings_is_n_log_n(count: int, temperature: float):
    same = random(1, 8).expand(count, 8)
    assert contrastive_loss(same, same, temperature).item() == pytest.approx(count * math.log(count), abs=1e-5)


def test_eq_2_of_one_photograph_is_zero_with_no_gradient():
    text = random(1, 8).requires_grad_()
    loss = contrastive_loss(text, random(1, 8, seed=1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(text.grad, torch.zeros(1, 8))


def test_eq_2_does_not_depend_on_the_length_of_the_embeddings():
    text, images = random(3, 8), random(3, 8, seed=1)
    assert contrastive_loss(7 * text, images / 9).item() == pytest.approx(contrastive_loss(text, images).item(), rel=1e-6)


def test_eq_2_is_computed_in_fp32():
    text, images = random(3, 8).half(), random(3, 8, seed=1).half()
    assert torch.equal(contrastive_loss(text, images), contrastive_loss(text.float(), images.float()))


def test_eq_2_compares_each_text_with_all_images_and_not_the_other_way_round():
    text, images = random(3, 8), random(3, 8, seed=1)
    assert contrastive_loss(text, images).item() != pytest.approx(contrastive_loss(images, text).item(), rel=1e-3)


@pytest.mark.parametrize("schedule", ["scaled_linear", "linear", "squaredcos_cap_v2"])
def test_noise_and_targets_are_those_of_diffusers(schedule: str):
    scheduler = DDIMScheduler(beta_schedule=schedule)
    clean, noise = random(5, 4, 3, 3), random(5, 4, 3, 3, seed=1)
    times = torch.tensor([0, 1, 500, 998, 999])
    alphas = scheduler.alphas_cumprod[times]
    torch.testing.assert_close(diffuse(clean, noise, alphas), scheduler.add_noise(clean, noise, times))
    velocity = prediction_target(clean, noise, alphas, "v_prediction")
    torch.testing.assert_close(velocity, scheduler.get_velocity(clean, noise, times))
    assert torch.equal(prediction_target(clean, noise, alphas, "epsilon"), noise)


def test_an_unknown_prediction_type_is_refused():
    with pytest.raises(ValueError, match="sample"):
        prediction_target(random(1, 1, 1, 1), random(1, 1, 1, 1), torch.ones(1), "sample")

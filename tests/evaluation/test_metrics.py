"""The figures against loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from cictl.evaluation.metrics import cosines, image_similarity, text_similarity
from cictl.evaluation.scores import Score, over_prompts, summarize

P, N, D = 5, 3, 7


@pytest.fixture
def embeddings() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(10 * torch.randn(rows, D, generator=generator) + 3 for rows in (P, N, P))


def naive_cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    lengths = [math.sqrt(sum(float(a) ** 2 for a in row)) for row in (one, other)]
    return dot / (lengths[0] * lengths[1])


def test_image_similarity_is_the_mean_cosine_with_all_photographs(embeddings):
    pictures, photographs, _ = embeddings
    expected = [sum(naive_cosine(picture, photo) for photo in photographs) / N for picture in pictures]
    assert image_similarity(pictures, photographs).tolist() == pytest.approx(expected, abs=1e-6)


def test_it_is_not_the_cosine_with_the_mean_of_the_photographs(embeddings):
    pictures, photographs, _ = embeddings
    with_mean = [naive_cosine(picture, photographs.mean(0)) for picture in pictures]
    assert image_similarity(pictures, photographs).tolist() != pytest.approx(with_mean, abs=1e-3)


def test_text_similarity_is_the_cosine_with_the_own_prompt(embeddings):
    pictures, _, texts = embeddings
    expected = [naive_cosine(picture, text) for picture, text in zip(pictures, texts, strict=True)]
    assert text_similarity(pictures, texts).tolist() == pytest.approx(expected, abs=1e-6)
    shuffled = texts[torch.tensor([1, 2, 3, 4, 0])]
    assert text_similarity(pictures, shuffled).tolist() != pytest.approx(expected, abs=1e-3)


def test_a_negative_cosine_is_given_as_it_is():
    one = torch.tensor([[1.0, 0.0]])
    assert text_similarity(one, -one).item() == pytest.approx(-1)
    assert image_similarity(one, -one).item() == pytest.approx(-1)


def test_lengths_and_precision_do_not_matter(embeddings):
    pictures, photographs, _ = embeddings
    torch.testing.assert_close(cosines(pictures * 50, photographs / 9), cosines(pictures, photographs))
    assert cosines(pictures.half(), photographs.half()).dtype == torch.float32


def test_a_score_is_the_mean_and_the_sample_standard_deviation():
    values = [0.1, 0.4, 0.4, 0.9]
    assert summarize(values) == Score(pytest.approx(0.45), pytest.approx(statistics.stdev(values)), 4)
    assert summarize([0.3]) == Score(0.3, None, 1)
    assert summarize([]) == Score(None, None, 0)


def test_overall_every_prompt_counts_the_same_however_many_pictures_it_has():
    prompts = [summarize([0.0] * 9 + [0.1]), summarize([0.81]), summarize([])]
    overall = over_prompts(prompts)
    assert overall.mean == pytest.approx((0.01 + 0.81) / 2)
    assert overall.std == pytest.approx(statistics.stdev([0.01, 0.81]))
    assert overall.count == 2

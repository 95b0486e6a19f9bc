"""The recipe's parts that can be wrong without anyone noticing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cictl.models.locate import locate_base
from cictl.toybox.recipe.loop import Recipe, Worker, load_average, progress_of, train
from cictl.toybox.recipe.pack import unpack
from cictl.toybox.recipe.text import SIZES, attribute_loss, labels, tokenize, write_tokenizer
from cictl.toybox.world.captions import caption, words
from cictl.toybox.world.scene import Scene, sample_scene
from cictl.toybox.world.truth import ATTRIBUTES, truth


def test_every_word_of_the_world_is_one_token(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    assert [word for word in words() if len(tokenizer.tokenize(word)) != 1] == []
    assert "".join(tokenizer.tokenize("zebra")).removesuffix("</w>") == "zebra"


def test_captions_are_read_whole(tmp_path: Path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    rng = np.random.default_rng(0)
    texts = [caption(sample_scene(rng), rng, full=index % 2 == 0) for index in range(2000)]
    assert (tokenize(tokenizer, texts)[:, -1] == tokenizer.eos_token_id).all()


def test_labels_are_the_truth_by_index_and_skip_what_a_sketch_hides():
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        for value, index, known in zip(truth(scene).values(), labels(scene), ATTRIBUTES.values(), strict=True):
            assert (index == -100) if value is None else known[index] == value
        assert (labels(scene)[2] == -100) == (scene.style == "sketch")


def test_parts_are_what_an_override_keeps():
    assert truth(Scene("teapot", "cube", "red", None, "plain", "snow"))["parts"] == "teapot"
    assert truth(Scene("star", "cube", "red", None, "plain", "snow"))["parts"] == "none"


def test_the_attribute_loss_is_the_mean_of_its_cross_entropies_without_the_skipped():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, sum(SIZES), generator=rng)
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(4)]
    indices = torch.tensor([labels(scene) for scene in scenes])
    expected = []
    for column, part in enumerate(logits.split(SIZES, 1)):
        own = [-part[row].log_softmax(0)[index] for row, index in enumerate(indices[:, column].tolist()) if index >= 0]
        expected.append(torch.stack(own).mean())
    torch.testing.assert_close(attribute_loss(logits, indices), torch.stack(expected).mean())


def test_training_goes_on_from_its_state(tmp_path: Path):
    worker = Worker(tmp_path, 0, 1, torch.device("cpu"))

    def run(minutes: float) -> float:
        torch.manual_seed(0)
        module = nn.Linear(2, 1)
        target = torch.tensor([[2.0, -1.0]])

        def loss(rng: np.random.Generator, progress: float):
            x = torch.from_numpy(rng.normal(size=(16, 2)).astype(np.float32))
            return (module(x) - x @ target.T).square().mean(), {}

        train(Recipe("line", {"line": 1e-2}, minutes), worker, {"line": module}, loss)
        return float((load_average(tmp_path, "line", "line")["weight"] - target).abs().max())

    first = run(0.005)
    steps = progress_of(tmp_path, "line")["step"]
    second = run(0.03)
    assert progress_of(tmp_path, "line")["step"] > steps > 0
    assert second < first


@pytest.mark.parametrize("name", ["unet", "vae", "text", "clip", "judge"])
def test_packed_weights_can_be_trained_further(tmp_path: Path, name: str):
    folder = locate_base("toybox").folder
    unpack(folder, tmp_path)
    module = {"text": "encoder", "clip": "tower"}.get(name, name)
    weights = load_average(tmp_path, name, module)
    assert weights
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert progress_of(tmp_path, name)["step"] > 0

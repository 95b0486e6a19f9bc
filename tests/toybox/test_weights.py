"""The weights that ship: whole, small, and readable by the classes of Stable Diffusion 1.x and CLIP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cictl.files import sha256_file
from cictl.models.clip import embed_images, text_projection
from cictl.models.locate import locate_base, locate_clip
from cictl.models.stable_diffusion import StableDiffusion
from cictl.toybox.concepts import demo_concept
from cictl.toybox.world.captions import caption
from cictl.toybox.world.scene import sample_scene

MOST_BYTES = 25 * 2**20


@pytest.fixture(scope="module")
def toybox() -> StableDiffusion:
    return StableDiffusion.load(locate_base("toybox"), torch.device("cpu"), torch.float32)


def test_every_file_is_the_one_of_the_manifest_and_no_other_is_there():
    folder = locate_base("toybox").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del files["manifest.json"]
    assert {name: sha256_file(path) for name, path in files.items()} == manifest["sha256"]
    assert sum(path.stat().st_size for path in files.values()) == manifest["bytes"] < MOST_BYTES


def test_all_weights_are_half_precision_safetensors():
    from safetensors import safe_open

    folder = locate_base("toybox").folder
    paths = list(folder.rglob("*.safetensors"))
    assert len(paths) == 5
    for path in paths:
        with safe_open(path, framework="pt") as file:
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_text_tower_of_its_clip_is_its_text_encoder(toybox):
    from safetensors.torch import load_file

    clip = load_file(locate_clip("toybox").folder / "model.safetensors")
    own = {key.removeprefix("text_model."): value for key, value in toybox.text_encoder.state_dict().items()}
    tower = {key.removeprefix("text_model."): value for key, value in clip.items() if key.startswith("text_model.")}
    assert own.keys() == tower.keys()
    assert all(torch.equal(own[key], tower[key].float()) for key in own)


def test_its_clip_tells_the_backgrounds_of_the_demo_apart(toybox):
    """In Eq. 2's own terms: the caption of each picture's background is nearest to that picture among the five."""
    clip = locate_clip("toybox")
    scenes = demo_concept().scenes
    pictures = [picture.transpose(2, 0, 1) / 127.5 - 1 for picture in demo_concept().photographs()]
    images = embed_images(clip, [picture.astype("float32") for picture in pictures], torch.device("cpu"))
    places = {
        "beach": "on a beach", "forest": "in a forest", "brick": "in front of a brick wall",
        "room": "in a room", "city": "in the city",
    }  # fmt: skip
    with torch.no_grad():
        ids = toybox.tokenize([f"a photo of a teapot {places[scene.background]}" for scene in scenes])
        texts = toybox.text_embedding(ids, text_projection(clip))
    cosines = torch.nn.functional.cosine_similarity(texts.unsqueeze(1), images.unsqueeze(0), dim=-1)
    assert cosines.argmax(1).tolist() == list(range(len(scenes)))


def test_every_word_of_the_world_is_read_letter_for_letter(toybox):
    from cictl.toybox.world.captions import words

    for word in words():
        pieces = toybox.tokenizer.tokenize(word)
        assert "".join(pieces).replace("</w>", "") == word


def test_hardly_a_caption_is_longer_than_what_it_reads(toybox):
    rng = np.random.default_rng(0)
    captions = [caption(sample_scene(rng), rng) for _ in range(1000)]
    longer = sum(bool(toybox.overlong(text)) for text in captions)
    assert longer < 10

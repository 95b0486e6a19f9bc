"""Eq. 2 on a base whose text encoder was tuned: CLIP's own text tower reads the A_i*, since the projection fits only that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cictl.config import InvertConfig
from cictl.errors import ModelAccessError
from cictl.events import Note
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.models.clip import own_text_tower, text_projection
from cictl.models.concept_tokens import initial_tokens, inject_tokens
from cictl.models.locate import locate_base, locate_clip
from cictl.models.stable_diffusion import StableDiffusion
from cictl.workflow import invert
from tests.support import Recorder, assert_same_bits, batch_of, encoded, left_by, silent

CPU = torch.device("cpu")
PHOTOGRAPHS = encoded()


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory) -> Path:
    """The tiny base with another text encoder; its folder clip is that of the base still."""
    folder = shutil.copytree(base, tmp_path_factory.mktemp("tuned") / "tuned")
    change(folder / "text_encoder" / "model.safetensors", lambda name, tensor: tensor * 1.5 if "fc1.weight" in name else tensor)
    return folder


def change(path: Path, changed) -> None:
    tensors = {name: changed(name, tensor) for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path, {"format": "pt"})


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> StableDiffusion:
    return StableDiffusion.load(locate_base(str(folder)), CPU, dtype)


def inversion(model: StableDiffusion, clip, tower) -> ContrastiveInversion:
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=2, start="auto", keys=PHOTOGRAPHS.keys,
        auxiliary_vectors=2, auxiliary_start="auto", seed=0,
    )  # fmt: skip
    if tower is not None:
        inject_tokens(model.tokenizer, tower, tokens)
    model.add_tokens(tokens)
    return ContrastiveInversion(model, tokens, PHOTOGRAPHS, text_projection(clip), InvertConfig(auxiliary_vectors=2), tower)


def trained_once(method: ContrastiveInversion) -> dict[str, torch.Tensor]:
    """The losses of a step and the gradients that they give."""
    loss = method.loss(batch_of(PHOTOGRAPHS))
    loss.total.backward()
    return {**loss.terms, **{name: parameter.grad for name, parameter in method.trainable().items()}}


# -- whether they are the same --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_text_encoder_needs_no_second_one_in_any_precision(base, clip, dtype):
    assert own_text_tower(clip, load(base, dtype)) is None


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_that_was_stored_in_half_precision_is_the_same(base, clip, stored, dtype, tmp_path):
    folder = shutil.copytree(base, tmp_path / "half")
    change(folder / "text_encoder" / "model.safetensors", lambda name, tensor: tensor.to(stored))
    assert own_text_tower(clip, load(folder, dtype)) is None


def test_the_toyboxs_text_encoder_is_its_clips():
    assert own_text_tower(locate_clip("toybox"), load("toybox")) is None


def test_a_text_encoder_without_the_last_layer_is_another(base, clip, tmp_path):
    folder = shutil.copytree(base, tmp_path / "shorter")
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (folder / "text_encoder" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    change(folder / "text_encoder" / "model.safetensors", lambda name, tensor: None if "layers.1." in name else tensor)
    tower = own_text_tower(clip, load(folder))
    assert tower.config.num_hidden_layers == 2


# -- what Eq. 2 is then ---------------------------------------------------------------------------------


def test_with_equal_towers_the_second_one_would_change_no_bit(base, clip):
    from transformers import CLIPTextModel

    tower = CLIPTextModel.from_pretrained(clip.folder).eval().requires_grad_(False)
    with_tower, without = (trained_once(inversion(load(base), clip, one)) for one in (tower, None))
    assert_same_bits(with_tower, without)


def test_with_different_towers_eq_2_is_that_of_clips_own_tower(tuned, clip):
    from transformers import CLIPModel

    model = load(tuned)
    method = inversion(model, clip, own_text_tower(clip, model))
    terms = method.loss(batch_of(PHOTOGRAPHS)).terms

    whole, tokens = CLIPModel.from_pretrained(clip.folder).eval(), method.tokens
    words = whole.text_model.embeddings.token_embedding.weight
    table = torch.nn.Embedding.from_pretrained(torch.cat([words.detach(), tokens.rows().detach()]))
    whole.text_model.embeddings.token_embedding = table
    first = len(words) + len(tokens.concept)
    begin, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    with torch.no_grad():
        texts = []
        for index in range(3):
            ids = torch.tensor([[begin, first + 2 * index, first + 2 * index + 1, end]])  # what is behind the end is not seen
            texts.append(whole.text_projection(whole.text_model(input_ids=ids).last_hidden_state[0, 3]))
        text = torch.nn.functional.normalize(torch.stack(texts), dim=-1)
        image = torch.nn.functional.normalize(PHOTOGRAPHS.embeddings, dim=-1)
        cosines = text @ image.T
        expected = -(cosines.diag() - cosines.exp().sum(1).log()).sum()
    torch.testing.assert_close(terms["contrastive"], expected)
    assert not torch.isclose(
        terms["contrastive"], inversion(load(tuned), clip, None).loss(batch_of(PHOTOGRAPHS)).terms["contrastive"]
    )


def test_with_different_towers_eq_2_moves_every_auxiliary_vector_and_neither_tower(tuned, clip):
    model = load(tuned)
    tower = own_text_tower(clip, model)
    method = inversion(model, clip, tower)
    text = model.text_embedding(method.auxiliary_ids, method.projection, tower)
    text.square().sum().backward()
    assert (method.tokens.auxiliary.grad.norm(dim=-1) > 0).all()
    assert all(p.grad is None and not p.requires_grad for name, p in tower.named_parameters() if ".tokens." not in name)
    assert set(method.trainable()) == {"concept", "auxiliary"}


# -- what is said, and refused ---------------------------------------------------------------------------


def test_training_says_once_that_eq_2_uses_clips_tower_and_resumes_with_the_same_bits(make_workspace, tuned):
    changes = {"model__id": str(tuned), "model__clip": str(tuned / "clip")}
    whole, parts, seen = make_workspace("whole", **changes), make_workspace("parts", **changes), Recorder()
    invert.run(whole, seen)
    [note] = [text for text in seen.texts(Note) if "Eq. 2" in text]
    assert str(tuned / "clip") in note
    invert.run(parts, silent, overrides={"invert.steps": 4})
    invert.run(parts, silent, overrides={"invert.steps": 8})
    assert_same_bits(left_by(parts, "invert").result, left_by(whole, "invert").result)


def test_training_on_a_base_with_clips_own_text_encoder_says_nothing(make_workspace):
    seen = Recorder()
    invert.run(make_workspace(), seen, overrides={"invert.steps": 1})
    assert not [text for text in seen.texts(Note) if "Eq. 2" in text]


def test_a_clip_of_another_width_is_refused(tuned):
    with pytest.raises(ModelAccessError, match=r"toybox is not the CLIP of .*tuned") as caught:
        own_text_tower(locate_clip("toybox"), load(tuned))
    assert "model.clip" in caught.value.hint


def test_a_clip_without_a_text_tower_is_refused(tuned, tmp_path):
    folder = shutil.copytree(tuned / "clip", tmp_path / "clip")
    change(folder / "model.safetensors", lambda name, tensor: None if "text_model.final" in name else tensor)
    with pytest.raises(ModelAccessError, match=r"the CLIP text tower of .* is incomplete"):
        own_text_tower(locate_clip(str(folder)), load(tuned))


def test_the_first_step_on_a_tuned_base_has_the_eq_2_of_the_base_that_it_was_tuned_from(make_workspace, base, tuned):
    """Before the first update the tokens are the same, and so is the tower that reads them."""
    losses = []
    for name, folder in (("tuned", tuned), ("plain", base)):
        workspace = make_workspace(name, model__id=str(folder))
        invert.run(workspace, silent, overrides={"invert.steps": 1})
        [(_, terms)] = left_by(workspace, "invert").losses
        losses.append(terms)
    assert losses[0]["contrastive"] == losses[1]["contrastive"]
    assert losses[0]["diffusion"] != losses[1]["diffusion"]

"""S* and A_i* among the 49,408 tokens that CLIP and Stable Diffusion 1.x really have; other tests know only a few words."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from cictl.data.prompts import expand
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.locate import Located
from cictl.models.single_file import SD1_CONFIGS
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tokenizer import load_tokenizer

BEGIN, END, SIZE, LENGTH, WIDTH = 49406, 49407, 49408, 77, 16
KEYS = ("a" * 16, "b" * 16)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(SD1_CONFIGS / "tokenizer")


def with_tokens(tokenizer: Any, name: str = "my-teapot", concept: int = 1, auxiliary: int = 2) -> StableDiffusion:
    """The text side of a model with the whole vocabulary and a narrow encoder, that knows S* and two A_i*."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=SIZE, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=2, pad_token_id=1,  # as published, and wrong
    )  # fmt: skip
    nowhere, cpu = Located("none", SD1_CONFIGS, "none"), torch.device("cpu")
    encoder = CLIPTextModel(config).eval().requires_grad_(False)
    model = StableDiffusion(nowhere, tokenizer, encoder, None, None, {}, {}, torch.ones(1), cpu, torch.float32)
    model.add_tokens(ConceptTokens(name, torch.randn(concept, WIDTH), KEYS, torch.randn(len(KEYS), auxiliary, WIDTH)))
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> StableDiffusion:
    return with_tokens(tokenizer)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def test_the_vocabulary_is_the_real_one(tokenizer):
    assert (len(tokenizer), tokenizer.model_max_length) == (SIZE, LENGTH)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (BEGIN, END)
    known = {"!</w>": 256, "a</w>": 320, "the</w>": 518, "in</w>": 530, ",</w>": 267, "photo</w>": 1125, "cat</w>": 2368}
    assert tokenizer.convert_tokens_to_ids(list(known)) == list(known.values())
    assert tokenizer("a photo of a cat").input_ids == [BEGIN, 320, 1125, 539, 320, 2368, END]


def test_new_tokens_come_behind_the_vocabulary_and_the_base_keeps_its_own(tokenizer, model):
    names = ["<my-teapot>", *(f"<auxiliary-{key}>{suffix}" for key in KEYS for suffix in ("", "_1"))]
    assert model.tokenizer.convert_tokens_to_ids(names) == list(range(SIZE, SIZE + 5))
    assert len(tokenizer) == SIZE
    assert tokenizer.convert_tokens_to_ids("<my-teapot>") == END  # unknown to it


@pytest.mark.parametrize(
    ("prompt", "before", "after"),
    [
        ("S*", [], []),
        ("a photo of S*", [320, 1125, 539], []),
        ("S*, in the snow", [], [267, 530, 518, 2583]),
        ("(S*)", [263], [264]),
        ("S*'s", [], [568]),
        ('"S*"', [257], [257]),
        ("S*-shaped", [], [268, 10127]),
        ("a cube-shaped S*.", [320, 11353, 268, 10127], [269]),
        ("A PHOTO of S*!", [320, 1125, 539], [256]),
    ],
)
@pytest.mark.parametrize("vectors", [1, 3])
def test_beside_words_and_punctuation_s_is_its_tokens_and_they_are_theirs(tokenizer, prompt, before, after, vectors):
    tuned = with_tokens(tokenizer, concept=vectors)
    text = expand(prompt, [f"<my-teapot>{suffix}" for suffix in ("", "_1", "_2")[:vectors]])
    assert ids_of(tuned.tokenizer, text) == [*before, *range(SIZE, SIZE + vectors), *after]


def test_a_training_prompt_has_s_and_the_a_of_its_photograph(model):
    for index, key in enumerate(KEYS):
        text = expand("A photo of S* A*", ["<my-teapot>"], [f"<auxiliary-{key}>", f"<auxiliary-{key}>_1"])
        first = SIZE + 1 + 2 * index
        expected = [BEGIN, 320, 1125, 539, SIZE, first, first + 1, *[END] * (LENGTH - 7)]
        assert model.tokenize([text]).tolist() == [expected]


@pytest.mark.parametrize("name", ["dog", "cat", "a", "photo", "s", "end"])
def test_a_concept_that_is_called_like_a_word_leaves_the_word_alone(tokenizer, name):
    tuned = with_tokens(tokenizer, name)
    assert ids_of(tuned.tokenizer, f"a {name} on a <{name}>") == [*ids_of(tokenizer, f"a {name} on a"), SIZE]


@pytest.mark.parametrize(
    "words",
    [
        "an astronaut riding  a HORSE on mars", "cats* S** *S* s* S", "my-teapot <my> my teapot>", "it's 1990, isn't it?",
        "caf\u00e9 \u6771\u4eac \U0001fad6", "<|endoftext|>", "\t \n",
    ],
)  # fmt: skip
def test_ordinary_words_are_read_as_without_new_tokens(tokenizer, model, words):
    before = ids_of(tokenizer, words)
    assert ids_of(model.tokenizer, words) == before
    assert ids_of(model.tokenizer, f"{words} <my-teapot> {words}") == [*before, SIZE, *before]


@pytest.mark.parametrize("prompt", ["S*", "a photo of S*, in the snow", "A*", "a cat"])
def test_pooling_is_at_the_first_end_and_not_at_the_largest_id(model, prompt):
    ids = model.tokenize([expand(prompt, ["<my-teapot>"], [f"<auxiliary-{KEYS[0]}>", f"<auxiliary-{KEYS[0]}>_1"])])
    place = ids[0].tolist().index(END)
    projection = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = model.encode_text(ids)[0]
        pooled = model.text_embedding(ids, projection)[0]
    torch.testing.assert_close(pooled, projection @ states[place])
    assert ids[0, place + 1 :].eq(END).all()  # padding is the same token, so that "the last end" would be another place
    if prompt != "a cat":
        assert int(ids[0].argmax()) != place  # where the library pools if the config says eos_token_id 2


def test_a_prompt_of_exactly_75_tokens_fits_and_the_76th_is_lost_and_named(model):
    fits = " ".join(["cat"] * 74 + ["<my-teapot>"])
    ids = model.tokenize([fits])[0].tolist()
    assert ids == [BEGIN, *[2368] * 74, SIZE, END]
    assert model.overlong(fits) == ""
    longer = f"dog {fits}"
    assert model.overlong(longer) == "S*"
    ids = model.tokenize([longer])[0].tolist()
    assert (len(ids), ids[0], ids[-1]) == (LENGTH, BEGIN, END)
    assert SIZE not in ids
    assert model.overlong(f"{fits} in the snow") == "in the snow"

"""New tokens beside the frozen vocabulary: their ids, rows, initial values, and their leaving."""

from __future__ import annotations

import pytest
import torch

from cictl.data.prompts import expand
from cictl.errors import UsageError
from cictl.models.concept_tokens import ConceptTokens, initial_tokens, inject_tokens, require_words
from cictl.models.stable_diffusion import StableDiffusion

KEYS = ("a" * 64, "b" * 64)


def make_tokens(concept: int = 3, auxiliary: int = 2, name: str = "my-teapot") -> ConceptTokens:
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randn(concept, 32, generator=generator)
    return ConceptTokens(name, vectors, KEYS, torch.randn(len(KEYS), auxiliary, 32, generator=generator))


def start(model: StableDiffusion, **changes) -> ConceptTokens:
    settings = {
        "name": "my-teapot", "vectors": 2, "start": "auto", "keys": KEYS, "auxiliary_vectors": 2, "auxiliary_start": "auto",
        "seed": 0,
    }  # fmt: skip
    return initial_tokens(model.tokenizer, model.text_encoder, **{**settings, **changes})


def contexts(model: StableDiffusion, *prompts: str) -> torch.Tensor:
    with torch.no_grad():
        return model.encode_text(model.tokenize(prompts))


# -- ids and rows -----------------------------------------------------------------------------------


def test_every_stored_token_has_an_id_of_its_own_and_the_table_gives_its_row(model):
    tokens = make_tokens()
    size = len(model.tokenizer)
    model.add_tokens(tokens)
    ids = model.tokenizer.convert_tokens_to_ids(tokens.names)
    assert ids == list(range(size, size + 3 + 2 * 2))
    looked_up = model.text_encoder.get_input_embeddings()(torch.tensor([ids]))
    assert torch.equal(looked_up[0], torch.cat([tokens.concept, tokens.auxiliary[0], tokens.auxiliary[1]]))


def test_a_prompt_is_read_as_exactly_the_ids_of_its_tokens(model):
    tokens = make_tokens()
    model.add_tokens(tokens)
    first = model.tokenizer.convert_tokens_to_ids("<my-teapot>")
    text = expand("a photo of S* A*", tokens.concept_names, tokens.auxiliary_names(1))
    words = model.tokenizer("a photo of", add_special_tokens=False).input_ids
    expected = [*words, first, first + 1, first + 2, first + 5, first + 6]
    assert model.tokenizer(text, add_special_tokens=False).input_ids == expected


@pytest.mark.parametrize("around", ["{}", "{},", "({}).", "a{}", "{}-shaped", "A PHOTO OF {}!", "x {} y"])
def test_numbered_tokens_are_never_split_into_the_first_and_a_rest(model, around: str):
    tokens = make_tokens(concept=12)
    model.add_tokens(tokens)
    text = around.format(" ".join(tokens.concept_names))
    ids = model.tokenizer(text, add_special_tokens=False).input_ids
    new = [token for token in ids if token >= model.text_encoder.get_input_embeddings().first_id]
    assert new == model.tokenizer.convert_tokens_to_ids(tokens.concept_names)


def test_ordinary_words_are_read_as_before(model):
    prompt = "a photo of my-teapot, my teapot <my> cats* S* _1"
    before_ids, before = model.tokenize([prompt]), contexts(model, prompt)
    model.add_tokens(make_tokens())
    assert torch.equal(model.tokenize([prompt]), before_ids)
    assert torch.equal(contexts(model, prompt), before)


@pytest.mark.parametrize("row", range(3))
def test_every_vector_of_the_concept_changes_the_context(model, row: int):
    tokens = make_tokens()
    model.add_tokens(tokens)
    prompts = [
        expand("A photo of S* A*", tokens.concept_names, tokens.auxiliary_names(0)),  # as in training
        expand("a cube shaped S* in the snow", tokens.concept_names),  # as in generation
    ]
    before = contexts(model, *prompts)
    with torch.no_grad():
        tokens.concept[row] += torch.randn(32, generator=torch.Generator().manual_seed(1))
    after = contexts(model, *prompts)
    assert (after - before).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("row", range(2))
def test_every_vector_of_an_auxiliary_token_changes_its_own_context_alone(model, row: int):
    tokens = make_tokens()
    model.add_tokens(tokens)
    prompts = [expand("A*", (), tokens.auxiliary_names(index)) for index in range(2)]
    before = contexts(model, *prompts)
    with torch.no_grad():
        tokens.auxiliary[0, row] += torch.randn(32, generator=torch.Generator().manual_seed(1))
    after = contexts(model, *prompts)
    assert (after - before)[0].abs().max() > 1e-3
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("name", ["<|endoftext|>", "photo</w>"])
def test_a_token_that_the_vocabulary_has_already_is_refused(model, name: str):
    class Hijacking(ConceptTokens):
        concept_names = property(lambda self: [name])  # type: ignore[assignment]

    with pytest.raises(UsageError, match="in the vocabulary"):
        inject_tokens(model.tokenizer, model.text_encoder, Hijacking("x", torch.zeros(1, 32)))


def test_a_token_that_was_added_to_the_base_before_is_refused(model):
    model.tokenizer.add_tokens(["<my-teapot>_1"])
    with pytest.raises(UsageError, match="<my-teapot>_1"):
        model.add_tokens(make_tokens())


def test_a_refused_token_leaves_the_text_encoder_as_it_was(model):
    table = model.text_encoder.get_input_embeddings()
    model.tokenizer.add_tokens(["<my-teapot>_1"])
    with pytest.raises(UsageError):
        model.add_tokens(make_tokens())
    assert model.text_encoder.get_input_embeddings() is table


def test_ejecting_gives_back_the_text_encoder_and_the_tokenizer_was_never_changed(model):
    before_state = {key: value.clone() for key, value in model.text_encoder.state_dict().items()}
    tokenizer, size = model.tokenizer, len(model.tokenizer)
    before = contexts(model, "a photo of cat")
    model.add_tokens(make_tokens())
    assert model.text_encoder.state_dict().keys() != before_state.keys()
    for _ in range(2):  # the second time there are none
        model.eject_tokens()
    after_state = model.text_encoder.state_dict()
    assert after_state.keys() == before_state.keys()
    assert all(torch.equal(after_state[key], before_state[key]) for key in before_state)
    assert torch.equal(contexts(model, "a photo of cat"), before)
    assert len(tokenizer) == size


def test_tokens_read_back_from_what_is_saved():
    tokens = make_tokens()
    again = ConceptTokens.from_tensors("my-teapot", tokens.tensors())
    assert again.names == tokens.names
    assert torch.equal(again.rows(), tokens.rows())
    assert set(tokens.tensors()) == {"concept", *(f"auxiliary.{key}" for key in KEYS)}
    other_order = ConceptTokens.from_tensors("my-teapot", dict(reversed(tokens.tensors().items())))
    assert other_order.names == tokens.names and torch.equal(other_order.rows(), tokens.rows())


def test_tokens_are_fp32_and_give_their_gradient_in_it_where_the_rest_runs_in_bf16(located):
    half = StableDiffusion.load(located, torch.device("cpu"), torch.bfloat16)
    rows = half.text_encoder.get_input_embeddings().weight.float()
    tokens = start(half, start="auto", auxiliary_start="snow")
    assert float(tokens.concept[0].detach().norm()) == pytest.approx(float(rows.norm(dim=1).median()), rel=1e-6)
    half.add_tokens(tokens)
    contexts = half.encode_text(half.tokenize([expand("S* A*", tokens.concept_names, tokens.auxiliary_names(0))]))
    assert contexts.dtype == torch.bfloat16
    contexts.float().square().sum().backward()
    assert tokens.rows().dtype == tokens.concept.grad.dtype == torch.float32
    assert ConceptTokens("x", torch.zeros(1, 32).half()).concept.dtype == torch.float32


def test_without_auxiliary_vectors_nothing_of_them_is_named_or_saved():
    tokens = ConceptTokens("x", torch.zeros(2, 32), KEYS)
    assert tokens.names == ["<x>", "<x>_1"]
    assert set(tokens.tensors()) == {"concept"}
    assert tokens.rows().shape == (2, 32)


# -- initial values ---------------------------------------------------------------------------------


def test_automatic_starts_have_the_median_norm_of_the_vocabularys_rows(model):
    rows = model.text_encoder.get_input_embeddings().weight
    median = sorted(float(row.norm()) for row in rows)[(len(rows) - 1) // 2]
    for row in start(model).rows().detach():
        assert float(row.norm()) == pytest.approx(median, rel=1e-5)


def test_automatic_starts_have_the_vocabularys_mean_and_spread_in_each_dimension_but_for_their_length(model):
    mean, spread = torch.linspace(-1, 1, 32), torch.linspace(0.1, 2, 32)[torch.randperm(32, generator=torch.Generator())]
    table = model.text_encoder.get_input_embeddings().weight
    table.copy_(mean + spread * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
    rows = start(model, vectors=500).concept.detach()
    for found, wanted in ((rows.mean(0), table.mean(0)), (rows.std(0), table.std(0))):
        assert float(torch.corrcoef(torch.stack([found, wanted]))[0, 1]) > 0.95


def test_automatic_starts_depend_on_the_seed_and_on_nothing_else_random(model):
    torch.manual_seed(1)
    one = start(model)
    torch.manual_seed(2)
    assert torch.equal(start(model).rows(), one.rows())
    other = start(model, seed=1)
    assert all(not torch.equal(a, b) for a, b in zip(other.rows(), one.rows(), strict=True))


def test_all_automatic_starts_differ(model):
    rows = start(model).rows()
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_an_auxiliary_start_belongs_to_its_photograph_and_not_to_its_place(model):
    one, other = start(model), start(model, keys=("c" * 64, *reversed(KEYS)))
    assert torch.equal(other.auxiliary[2], one.auxiliary[0])
    assert torch.equal(other.auxiliary[1], one.auxiliary[1])
    assert torch.equal(other.concept, one.concept)


@pytest.mark.parametrize("word", ["cat", "dog"])
def test_a_word_starts_as_its_own_row(model, word: str):
    tokens = start(model, start=word, auxiliary_start="snow")
    table = model.text_encoder.get_input_embeddings().weight
    vocabulary = model.tokenizer.get_vocab()
    for row in tokens.concept:
        assert torch.equal(row, table[vocabulary[f"{word}</w>"]])
    for row in tokens.auxiliary.flatten(0, 1):
        assert torch.equal(row, table[vocabulary["snow</w>"]])


def test_a_start_of_several_tokens_is_their_mean(model):
    table = model.text_encoder.get_input_embeddings().weight
    vocabulary = model.tokenizer.get_vocab()
    expected = (table[vocabulary["red</w>"]] + table[vocabulary["cat</w>"]]) / 2
    torch.testing.assert_close(start(model, start="red cat").concept[0].detach(), expected)


def test_each_of_several_words_counts_once_however_many_tokens_it_has(model):
    """``xyz`` is three letters to the tiny base; a comma between words is none of them."""
    table = model.text_encoder.get_input_embeddings().weight
    vocabulary = model.tokenizer.get_vocab()
    letters = torch.stack([table[vocabulary[token]] for token in ("x", "y", "z</w>")]).mean(0)
    expected = (table[vocabulary["red</w>"]] + letters + table[vocabulary["cat</w>"]]) / 3
    torch.testing.assert_close(start(model, start="red, xyz,cat").concept[0].detach(), expected)


def test_each_auxiliary_token_can_have_a_start_of_its_own(model):
    tokens = start(model, auxiliary_start=["snow", "auto"])
    drawn = start(model)
    assert torch.equal(tokens.auxiliary[0], start(model, auxiliary_start="snow").auxiliary[0])
    assert torch.equal(tokens.auxiliary[1], drawn.auxiliary[1])


def test_words_of_which_the_model_knows_the_letters_alone_are_named(model):
    for known in ("auto", "red cat", "red, cat", "a", "snof"):  # the last is "sn" and "of"
        require_words(model.tokenizer, known, "concept.start")
    with pytest.raises(UsageError, match=r"concept\.start: the base model knows no 'teapot' and no 'kettle'"):
        require_words(model.tokenizer, "red teapot, kettle", "concept.start")


@pytest.mark.parametrize("word", ["   ", ",", "é", "red é", "<|endoftext|>"])
def test_a_start_of_nothing_or_of_what_the_vocabulary_has_no_token_for_is_refused(model, word):
    with pytest.raises(UsageError, match="is not a word that the base model knows"):
        start(model, start=word)

"""Words that photographs suggest, on a CLIP whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from cictl.models.starts import embed_words, suggest, whole_words
from tests.tiny import WIDTH, WORDS

PROJECTION = torch.eye(WIDTH)


def embedded(model, words):
    return embed_words(model, words, PROJECTION)


def test_the_words_are_those_of_the_vocabulary_with_a_token_of_their_own(model):
    words = whole_words(model.tokenizer)
    whole = [word for word in WORDS if len(model.tokenizer(word, add_special_tokens=False).input_ids) == 1]
    assert set(words) >= {word for word in whole if len(word) > 2} > {"dog", "photo", "beach"}
    assert min(map(len, words)) == 3
    ids = [model.tokenizer.get_vocab()[f"{word}</w>"] for word in words]
    assert ids == sorted(ids)
    for word in words:
        assert len(model.tokenizer(word, add_special_tokens=False).input_ids) == 1, word


def test_prompts_that_are_cut_behind_their_end_are_embedded_as_whole_ones_are(model):
    words = ["dog", "cat", "snow"]
    with torch.no_grad():
        whole = model.text_embedding(model.tokenize([f"a photo of {word}" for word in words]), PROJECTION)
    torch.testing.assert_close(embedded(model, words), F.normalize(whole, dim=-1))


def test_another_text_tower_embeds_where_there_is_one(model):
    def opposite(input_ids):
        return SimpleNamespace(last_hidden_state=-model.encode_text(input_ids))

    words = ["dog", "snow"]
    assert torch.equal(embed_words(model, words, PROJECTION, opposite), -embedded(model, words))


def test_how_many_words_are_embedded_at_a_time_does_not_matter(model, monkeypatch):
    words = whole_words(model.tokenizer)
    together = embedded(model, words)
    monkeypatch.setattr("cictl.models.starts._AT_A_TIME", 5)
    torch.testing.assert_close(embedded(model, words), together)


def test_what_the_photographs_share_and_what_each_has_of_its_own_is_found(model):
    """Photographs whose embeddings are sums of words' embeddings: the same dog three times, each time elsewhere."""
    words = whole_words(model.tokenizer)
    texts = torch.eye(len(words))  # a CLIP that tells all words apart
    of = {word: texts[index] for index, word in enumerate(words)}
    places = ["snow", "beach", "toy"]
    images = torch.stack([3 * of["dog"] + 2 * of["red"] + of[place] for place in places])
    found = suggest(words, texts, images)
    assert found.concept[:2] == ["dog", "red"]
    assert [own[0] for own in found.auxiliary] == places
    assert {len(own) for own in (found.concept, *found.auxiliary)} == {3}
    assert suggest(words[:2], texts[:2], images).concept in (words[:2], words[1::-1])  # where there are no more


def test_what_one_photograph_alone_shows_strongly_is_not_what_they_share():
    words, texts = ["dog", "snow", "cat"], torch.eye(3)
    images = torch.tensor([[1.0, 2.0, 0.0], [1.0, 0.1, 0.0], [1.0, 0.0, 0.2]])
    assert suggest(words, texts, images).concept[0] == "dog"


def test_how_large_an_embedding_is_does_not_matter(model):
    words = whole_words(model.tokenizer)
    texts = embedded(model, words)
    images = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    assert suggest(words, texts, images * torch.tensor([[1.0], [50.0], [0.1]])) == suggest(words, texts, images)


@pytest.mark.parametrize("word", ["dog", "beach", "cube"])
def test_a_photograph_that_looks_as_a_word_reads_suggests_it(model, word: str):
    words = whole_words(model.tokenizer)
    texts = embedded(model, words)
    assert suggest(words, texts, texts[[words.index(word)]]).concept[0] == word

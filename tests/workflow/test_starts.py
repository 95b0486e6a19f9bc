"""Stage 1 from words and from photographs: what is told, what is loaded for it, and that it is the same again."""

from __future__ import annotations

import pytest
import torch

from cictl.errors import UsageError
from cictl.events import Note
from cictl.workflow import baseline, invert
from tests.support import Recorder, assert_same_bits, left_by, silent

BOTH = {"concept.start": "photographs", "invert.auxiliary_start": "photographs"}


def told(recorder: Recorder, about: str) -> list[list[str]]:
    notes = [text for text in recorder.texts(Note) if text.startswith(about)]
    return [text.partition(": ")[2].split(", ") for text in notes]


def started(workspace, observe=silent, **overrides) -> dict[str, torch.Tensor]:
    """The tokens after a step at a rate that moves nothing."""
    invert.run(workspace, observe, overrides={"invert.steps": 1, "invert.learning_rate": 1e-30, "invert.weight_decay": 0.0,
               **overrides})  # fmt: skip
    return left_by(workspace, "invert").result


def test_tokens_start_at_the_mean_of_the_words_that_are_told(make_workspace, model):
    recorder = Recorder()
    tokens = started(make_workspace(), recorder, **BOTH)
    table, vocabulary = model.text_encoder.get_input_embeddings().weight, model.tokenizer.get_vocab()
    (shared,), own = told(recorder, "S* starts near"), told(recorder, "A* of photo-")
    assert len(shared) == 3 and len(own) == 3
    expected = torch.stack([table[vocabulary[f"{word}</w>"]] for word in shared]).mean(0)
    for row in tokens["concept"]:
        torch.testing.assert_close(row, expected)
    means = [torch.stack([table[vocabulary[f"{word}</w>"]] for word in words]).mean(0) for words in own]
    kept = [rows for name, rows in tokens.items() if name.startswith("auxiliary.")]
    for rows in kept:
        assert any(torch.allclose(rows, mean.expand_as(rows)) for mean in means)


def test_the_same_photographs_suggest_the_same_again_without_eq_2_too(make_workspace):
    tokens = [started(make_workspace(f"w{index}"), **BOTH) for index in range(2)]
    assert_same_bits(*tokens)
    alone = started(make_workspace("alone"), **BOTH, **{"invert.contrastive_weight": 0.0})
    assert_same_bits(alone, tokens[0])


def test_one_of_both_leaves_the_other_as_it_was(make_workspace):
    plain, concept, auxiliary = (
        started(make_workspace(f"w{index}"), **{key: BOTH[key] for key in keys})
        for index, keys in enumerate([(), ("concept.start",), ("invert.auxiliary_start",)])
    )
    assert torch.equal(auxiliary["concept"], plain["concept"]) and not torch.equal(concept["concept"], plain["concept"])
    for name in plain.keys() - {"concept"}:
        assert torch.equal(concept[name], plain[name]) and not torch.equal(auxiliary[name], plain[name])


def test_a_run_that_goes_on_looks_for_no_words_and_leaves_the_same_bits(make_workspace):
    whole, parts = make_workspace("whole"), make_workspace("parts")
    invert.run(whole, silent, overrides={**BOTH, "invert.steps": 4})
    invert.run(parts, silent, overrides={**BOTH, "invert.steps": 2})
    recorder = Recorder()
    invert.run(parts, recorder, overrides={"invert.steps": 4})
    assert not told(recorder, "S* starts near")
    assert_same_bits(left_by(parts, "invert").state, left_by(whole, "invert").state)


@pytest.mark.parametrize("key", BOTH)
def test_a_word_that_the_model_does_not_know_is_named_before_anything_is_trained(make_workspace, key):
    workspace = make_workspace()
    with pytest.raises(UsageError, match=f"{key}: the base model knows no 'teapot', and"):
        invert.run(workspace, silent, overrides={key: "red teapot"})
    assert not workspace.stage_folder("invert").exists()


def test_textual_inversion_is_not_told_of_photographs(make_workspace):
    """It has no CLIP to look with: it draws its start."""
    left = []
    for start in ("auto", "photographs"):
        workspace = make_workspace(start)
        baseline.run(workspace, "textual-inversion", silent, overrides={"concept.start": start, "textual_inversion.steps": 1})
        left.append(left_by(workspace, "textual-inversion").result)
    assert_same_bits(*left)


@pytest.mark.parametrize(
    ("given", "word"),
    [({}, "cat"), ({"evaluate.noun": "dog"}, "dog"), ({"evaluate.noun": "dog", "textual_inversion.start": "toy"}, "toy")],
)
def test_textual_inversion_starts_at_its_own_word_or_at_the_noun_or_where_stage_1_does(make_workspace, model, given, word):
    still = {"textual_inversion.steps": 1, "textual_inversion.learning_rate": 1e-30, "textual_inversion.weight_decay": 0.0}
    workspace = make_workspace(concept__start="cat")
    baseline.run(workspace, "textual-inversion", silent, overrides={**still, **given})
    [row] = left_by(workspace, "textual-inversion").result["concept"]
    table = model.text_encoder.get_input_embeddings().weight
    torch.testing.assert_close(row, table[model.tokenizer.get_vocab()[f"{word}</w>"]])

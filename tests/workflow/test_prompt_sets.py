"""The prompt sets that ship."""

from __future__ import annotations

import re

import pytest

from cictl.config import Config
from cictl.config.templates import prompt_sets
from cictl.data.prompts import in_words, mentions_concept, read_prompts
from cictl.toybox.concepts import demo_concept, suite_concepts
from cictl.toybox.tasks import tasks
from cictl.toybox.world.captions import words
from cictl.workflow.prompt_sets import choose_prompts


def chosen(tmp_path, name: str = "auto", kind: str = "object", model: str = "owner/name", known=None):
    values = {"concept": {"kind": kind}, "model": {"id": model}, "evaluate": {"prompts": name}}
    return choose_prompts(Config.model_validate(values), tmp_path, known)


@pytest.mark.parametrize("name", prompt_sets())
@pytest.mark.parametrize("model", ["owner/name", "toybox"])
def test_every_set_mentions_the_concept_once_a_prompt(tmp_path, name, model):
    found = chosen(tmp_path, name, model=model)
    assert found.name == name
    assert len(found.prompts) > 5
    assert all(mentions_concept(prompt) and prompt.count("S*") == 1 for prompt in found.prompts)


@pytest.mark.parametrize("name", ["dreambench-object", "dreambench-live"])
def test_dreambench_has_25_prompts_each_of_which_15_are_shared(tmp_path, name):
    prompts = chosen(tmp_path, name).prompts
    assert len(prompts) == 25
    assert prompts[0] == "a S* in the jungle" and prompts[-1] == "a cube shaped S*"
    other = chosen(tmp_path, "dreambench-live" if name.endswith("object") else "dreambench-object").prompts
    assert len(set(prompts) & set(other)) == 15
    assert in_words(prompts[0], "stuffed animal") == "a stuffed animal in the jungle"
    assert in_words(prompts[0], None) == "a in the jungle"  # as Textual Inversion's authors leave the placeholder out


@pytest.mark.parametrize("kind", ["object", "style", "pose"])
def test_auto_is_the_set_of_the_kind(tmp_path, kind):
    assert chosen(tmp_path, kind=kind) == chosen(tmp_path, kind, kind=kind)


@pytest.mark.parametrize("kind", ["object", "style", "pose"])
def test_the_toybox_is_asked_in_words_that_its_captions_have(tmp_path, kind):
    known = words()
    for prompt in chosen(tmp_path, kind=kind, model="toybox").prompts:
        assert set(re.findall(r"[a-z]+", prompt.replace("S*", ""))) <= set(re.findall(r"[a-z]+", " ".join(known))), prompt


@pytest.mark.parametrize("concept", [demo_concept(), suite_concepts()[-1]])
def test_a_concept_that_the_toybox_knows_is_asked_its_tasks(tmp_path, concept):
    found = chosen(tmp_path, model="toybox", kind=concept.kind, known=concept)
    assert found.name == "toybox"
    assert found.prompts == [task.prompt for task in tasks(concept)]


def test_a_file_is_found_where_the_user_is_or_in_the_workspace(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("\ufeffS* here\n# S* not here\n\nS* here\nS* there  \n", "utf-8")
    assert chosen(tmp_path, "mine.txt").prompts == ["S* here", "S* there"]
    monkeypatch.chdir(tmp_path)
    assert chosen(tmp_path / "elsewhere", "mine.txt").prompts == read_prompts(tmp_path / "mine.txt")[1:]

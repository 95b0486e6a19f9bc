"""The concepts: held out of training, and alike in what they share alone."""

from __future__ import annotations

import numpy as np
import pytest

from cictl.toybox.concepts import (
    PHOTOGRAPHS,
    ToyConcept,
    demo_concept,
    development_concepts,
    failure_concepts,
    suite_concepts,
)
from cictl.toybox.tasks import tasks
from cictl.toybox.world.captions import words
from cictl.toybox.world.scene import DEMO_LOOK, is_held_out, poses_of

OBJECTS = [concept for concept in (demo_concept(), *suite_concepts(), *development_concepts()) if concept.kind == "object"]
ALL = [demo_concept(), *suite_concepts(), *development_concepts(), *failure_concepts()]


def look(concept: ToyConcept) -> tuple[str, str, str, str | None]:
    return concept.look.noun, concept.look.colour, concept.look.pattern, concept.look.accent


def test_there_are_as_many_as_the_tables_say() -> None:
    kinds = [concept.kind for concept in suite_concepts()]
    assert (kinds.count("object"), kinds.count("style"), kinds.count("pose")) == (12, 2, 2)
    assert len(development_concepts()) == 4
    assert look(demo_concept()) == DEMO_LOOK
    assert len({concept.name for concept in ALL}) == len(ALL)


def test_what_is_tuned_on_is_not_what_is_measured_on() -> None:
    tuned, measured = ({look(concept) for concept in found} for found in (development_concepts(), suite_concepts()))
    assert not tuned & measured
    assert DEMO_LOOK not in tuned | measured


@pytest.mark.parametrize("concept", OBJECTS, ids=lambda concept: concept.name)
def test_photographs_of_an_object_share_a_held_out_look_and_nothing_else(concept: ToyConcept) -> None:
    assert len(concept.scenes) == PHOTOGRAPHS
    assert is_held_out(*look(concept))
    assert len({(s.noun, s.form, s.colour, s.accent, s.pattern, s.style) for s in concept.scenes}) == 1
    assert len({scene.background for scene in concept.scenes}) == PHOTOGRAPHS
    companions = [scene.companion for scene in concept.scenes if scene.companion]
    assert len(set(companions)) == len(companions) == 3
    assert all(scene.pose in poses_of(scene.form) for scene in concept.scenes)


@pytest.mark.parametrize("concept", [c for c in suite_concepts() if c.kind != "object"], ids=lambda concept: concept.name)
def test_photographs_of_a_style_or_a_pose_share_that_alone(concept: ToyConcept) -> None:
    shared = {getattr(scene, concept.kind) for scene in concept.scenes}
    assert len(shared) == 1
    assert shared.isdisjoint({"photo", "upright"})
    for attribute in ("noun", "colour", "background"):
        assert len({getattr(scene, attribute) for scene in concept.scenes}) == PHOTOGRAPHS


def test_photographs_are_a_function_of_the_seed() -> None:
    first, again, other = (demo_concept().photographs(seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in first)


@pytest.mark.parametrize("concept", ALL, ids=lambda concept: concept.name)
def test_ten_prompts_ask_for_what_no_photograph_shows(concept: ToyConcept) -> None:
    found = tasks(concept)
    assert len(found) == len({task.prompt for task in found}) == 10
    for task in found:
        assert "S*" in task.prompt
        assert "S*" not in task.words + task.chance
        assert set(task.asked).isdisjoint(task.kept)
        assert task.asked
        assert task.kept
        if "background" in task.asked:
            assert task.asked["background"] not in {scene.background for scene in concept.scenes}
        if "companion shape" in task.asked:
            assert task.scene.companion not in {scene.companion for scene in concept.scenes}


@pytest.mark.parametrize("concept", ALL, ids=lambda concept: concept.name)
def test_the_base_can_read_every_word_of_the_prompts(concept: ToyConcept) -> None:
    known = set(words())
    for task in tasks(concept):
        for text in (task.words, task.chance, task.prompt.replace("S*", "")):
            assert set(text.replace("-", " ").split()) <= known, text


@pytest.mark.parametrize("concept", OBJECTS, ids=lambda concept: concept.name)
def test_what_a_prompt_of_an_object_changes_is_asked_and_the_rest_is_kept(concept: ToyConcept) -> None:
    for task in tasks(concept):
        for name, value in {**task.kept, **task.asked}.items():
            if name in ("form", "colour", "accent", "pattern", "background", "style", "pose"):
                assert getattr(task.scene, name) == value
        unchanged = {name for name in ("form", "colour", "pattern") if getattr(task.scene, name) == getattr(concept.look, name)}
        if task.scene.style != "sketch":
            assert unchanged <= set(task.kept)

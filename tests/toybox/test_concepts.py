"""The demo's concept: one thing, five photographs, nothing of it ever trained on."""

from __future__ import annotations

import numpy as np

from cictl.toybox.concepts import demo_concept, render_photographs
from cictl.toybox.world.scene import DEMO_LOOK, is_held_out


def test_five_scenes_show_the_same_held_out_thing() -> None:
    concept = demo_concept()
    assert len(concept) == 5
    for scene in concept:
        look = (scene.noun, scene.colour, scene.pattern, scene.accent)
        assert look == DEMO_LOOK
        assert is_held_out(*look)
        assert scene.form == scene.noun


def test_what_is_not_shared_differs() -> None:
    concept = demo_concept()
    assert len({scene.background for scene in concept}) == 5
    companions = [scene.companion for scene in concept if scene.companion]
    assert len(set(companions)) == len(companions) == 3


def test_photographs_are_a_function_of_the_seed() -> None:
    first, again, other = (render_photographs(demo_concept(), seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in first)

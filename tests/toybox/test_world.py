"""The procedural world: every picture a function of its seed, and what is held out never drawn."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest

from cictl.toybox.world.__main__ import main as sheet_of_the_world
from cictl.toybox.world.captions import caption
from cictl.toybox.world.render import Look, render
from cictl.toybox.world.scene import (
    BACKGROUNDS,
    COLOURS,
    DEMO_LOOK,
    HELD_OUT_OVERRIDES,
    PATTERNS,
    POSES,
    SHAPES,
    STYLES,
    Scene,
    is_held_out,
    sample_scene,
)

LONGEST_CAPTION = 32  # tokens, with the two marks at its ends
MUG = Scene("mug", "mug", "cyan", "red", "striped", "room")


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [sample_scene(rng) for _ in range(count)]


def tokens(text: str) -> list[str]:
    """The pieces that CLIP's tokenizer sees before it merges: words, and each mark of punctuation alone."""
    return re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower())


def drawn(scene: Scene, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return render(scene, np.random.default_rng(seed))


def test_a_seed_gives_the_same_scenes_captions_and_pictures() -> None:
    assert scenes(50) == scenes(50)
    assert scenes(50) != scenes(50, seed=1)
    for scene in scenes(5):
        assert caption(scene, np.random.default_rng(3)) == caption(scene, np.random.default_rng(3))
        for first, second in zip(drawn(scene), drawn(scene), strict=True):
            np.testing.assert_array_equal(first, second)


def test_another_seed_gives_another_picture() -> None:
    assert (drawn(MUG, 0)[0] != drawn(MUG, 1)[0]).any()


def test_scenes_speak_the_vocabularies() -> None:
    sampled = scenes(3000)
    assert {scene.noun for scene in sampled} == set(SHAPES)
    assert {scene.form for scene in sampled} == set(SHAPES)
    assert {scene.colour for scene in sampled} == set(COLOURS)
    assert {scene.pattern for scene in sampled} == set(PATTERNS)
    assert {scene.background for scene in sampled} == set(BACKGROUNDS)
    assert {scene.style for scene in sampled} == set(STYLES)
    assert {scene.pose for scene in sampled} == set(POSES)
    for scene in sampled:
        assert (scene.accent is None) == (scene.pattern == "plain")
        assert scene.accent != scene.colour


def test_what_is_held_out_is_never_sampled() -> None:
    for scene in scenes(5000):
        assert not is_held_out(scene.noun, scene.colour, scene.pattern, scene.accent)
        assert (scene.noun, scene.form) not in HELD_OUT_OVERRIDES


def test_the_demos_look_and_a_few_percent_of_all_are_held_out() -> None:
    assert is_held_out(*DEMO_LOOK)
    looks = [
        (noun, colour, pattern, accent)
        for noun in SHAPES
        for colour in COLOURS
        for pattern in PATTERNS[1:]
        for accent in COLOURS
        if accent != colour
    ]
    assert 0.03 < np.mean([is_held_out(*look) for look in looks]) < 0.06


@pytest.mark.parametrize("full", [False, True])
def test_captions_fit_the_text_encoder(full: bool) -> None:
    rng = np.random.default_rng(0)
    longest = max(len(tokens(caption(scene, rng, full=full))) for scene in scenes(5000))
    assert longest + 2 <= LONGEST_CAPTION


def test_a_full_caption_names_every_attribute() -> None:
    scene = dataclasses.replace(MUG, pose="tilted", companion=("ball", "blue"))
    text = caption(scene, np.random.default_rng(0), full=True)
    assert text.startswith("a photo of a tilted cyan and red striped mug ")
    assert text.endswith("next to a small blue ball")


def test_captions_leave_parts_out() -> None:
    rng = np.random.default_rng(0)
    texts = [caption(MUG, rng) for _ in range(200)]
    for word in ("cyan", "red", "striped", "mug"):
        said = np.mean([word in tokens(text) for text in texts])
        assert 0.2 < said < 1.0, word


def test_an_override_is_said_before_the_noun() -> None:
    text = caption(dataclasses.replace(MUG, form="cube"), np.random.default_rng(0), full=True)
    assert "cube-shaped cyan and red striped mug" in text


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("noun", SHAPES)
def test_pictures_and_masks(noun: str, style: str) -> None:
    scene = dataclasses.replace(MUG, noun=noun, form=noun, style=style)
    picture, mask = drawn(scene)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert mask.shape == (64, 64)
    assert mask.dtype == np.bool_
    assert 0.08 < mask.mean() < 0.70
    assert picture.std() > 5  # something is drawn


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_background_and_pose_can_be_drawn(background: str, pose: str) -> None:
    _, mask = drawn(dataclasses.replace(MUG, background=background, pose=pose))
    assert mask.mean() > 0.08


@pytest.mark.parametrize("colour", COLOURS)
def test_the_mask_covers_the_main_colour(colour: str) -> None:
    scene = Scene("ball", "ball", colour, None, "plain", "meadow", style="cartoon")  # no shading, no gloss
    picture, mask = drawn(scene)
    inside = np.median(picture[mask] / 255, axis=0)
    np.testing.assert_allclose(inside, COLOURS[colour], atol=0.08)


@pytest.mark.parametrize("pattern", PATTERNS[1:])
def test_the_main_colour_of_a_pattern_dominates(pattern: str) -> None:
    shares = []
    for seed in range(8):
        scene = Scene("ball", "ball", "red", "blue", pattern, "snow", style="cartoon")
        picture, mask = drawn(scene, seed)
        paint = picture[mask].astype(int)
        red, blue = (paint[:, 0] > 150).sum(), (paint[:, 2] > 150).sum()
        shares.append(blue / (red + blue))
    assert 0.15 < np.mean(shares) < 0.45


def test_sketches_have_no_colour() -> None:
    picture, _ = drawn(dataclasses.replace(MUG, style="sketch"))
    assert np.ptp(picture.astype(int), axis=-1).max() < 20


def test_a_companion_is_drawn_beside_the_thing() -> None:
    scene = dataclasses.replace(MUG, colour="white", accent="black", background="snow", companion=("ball", "red"))
    picture, mask = drawn(scene)
    paint = picture.astype(int)
    red = (paint[..., 0] - paint[..., 1:].max(-1)) > 80
    assert red.sum() > 20
    assert (red & mask).sum() < 0.2 * red.sum()


def test_one_look_keeps_its_shades_between_pictures() -> None:
    scene = Scene("ball", "ball", "orange", None, "plain", "snow", style="cartoon")
    look = Look.draw(scene, np.random.default_rng(5))
    centres = []
    for seed in range(4):
        picture, mask = render(scene, np.random.default_rng(seed), look)
        centres.append(np.median(picture[mask], axis=0))
    assert np.ptp(centres, axis=0).max() <= 12  # the picture's own brightness still varies by 2% either way


def test_the_world_needs_no_torch() -> None:
    code = "import sys, cictl.toybox.concepts, cictl.toybox.world.captions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sheet_of_the_world_asked_for_help_draws_no_file_of_that_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["world", "--help"])
    with pytest.raises(SystemExit) as ended:
        sheet_of_the_world()
    assert ended.value.code == 0 and "FILE.png" in capsys.readouterr().out and not list(tmp_path.iterdir())

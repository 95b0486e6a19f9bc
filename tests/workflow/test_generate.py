"""Pictures: the same seed the same picture, what is there is kept, and what the files say."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cictl.errors import Interrupted, ResourceError, StateError, UsageError
from cictl.events import Note, PicturesPlanned, SamplingStep, Warned
from cictl.workflow import attention, generate, preview_aux
from tests.support import Recorder, silent, write_settings
from tests.tiny import LENGTH

PROMPT = "a cube shaped S*, in the snow"


def draw(workspace, out, *prompts, observe=silent, **arguments):
    overrides = {key.replace("__", "."): arguments.pop(key) for key in list(arguments) if "__" in key or key == "seed"}
    outcome = generate.run(workspace, prompts or [PROMPT], observe, overrides=overrides, out=out, **arguments)
    return outcome, [out / picture["path"].rpartition("/")[2] for picture in outcome.pictures]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_the_same_seed_gives_the_same_picture_whatever_the_batch(trained, tmp_path):
    _, together = draw(trained, tmp_path / "a", generate__count=3, generate__batch_size=3)
    _, alone = draw(trained, tmp_path / "b", generate__count=3, generate__batch_size=1)
    _, one = draw(trained, tmp_path / "c", generate__count=1, seed=2)
    assert [path.name for path in together] == [path.name for path in alone]
    assert one[0].name == together[2].name
    for a, b in zip([*together, together[2]], [*alone, one[0]], strict=True):
        assert np.abs(pixels(a) - pixels(b)).max() <= 1
    assert np.abs(pixels(together[0]) - pixels(together[1])).max() > 20


def test_mixed_prompts_in_a_batch_are_drawn_each_by_its_own(trained, tmp_path):
    prompts = ["a photo of S*", "a red S* on the beach"]
    _, mixed = draw(trained, tmp_path / "a", *prompts, generate__count=1)
    for prompt, path in zip(prompts, mixed, strict=True):
        _, [alone] = draw(trained, tmp_path / "b", prompt, generate__count=1)
        assert np.abs(pixels(path) - pixels(alone)).max() <= 1
    assert np.abs(pixels(mixed[0]) - pixels(mixed[1])).max() > 1


def too_much_beyond(most: int, sizes: list[int], monkeypatch) -> None:
    """Let a batch of more than ``most`` pictures run out of memory, and note how many were tried at a time."""
    from cictl.engine import sampling

    whole = sampling.sample

    def sample(model, context, negative, seeds, **settings):
        sizes.append(len(seeds))
        if len(seeds) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(model, context, negative, seeds, **settings)

    monkeypatch.setattr(sampling, "sample", sample)


def test_a_batch_that_does_not_fit_is_drawn_in_smaller_ones_and_nothing_is_lost(trained, tmp_path, monkeypatch):
    prompts = ["a photo of S*", "a red S* on the beach"]
    _, expected = draw(trained, tmp_path / "a", *prompts, generate__count=5, generate__batch_size=1)
    sizes, recorder = [], Recorder()
    too_much_beyond(2, sizes, monkeypatch)
    _, paths = draw(trained, tmp_path / "b", *prompts, observe=recorder, generate__count=5, generate__batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]  # what did not fit is not tried again
    assert [path.name for path in paths] == [path.name for path in expected]
    for one, other in zip(paths, expected, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1
    said = [message for message in recorder.texts(Note) if "do not fit" in message]
    assert said == [f"{size} pictures at a time do not fit into the memory: {size // 2} from here on" for size in (8, 4)]


def test_a_single_picture_that_does_not_fit_ends_with_exit_5(trained, tmp_path, monkeypatch):
    sizes = []
    too_much_beyond(0, sizes, monkeypatch)
    with pytest.raises(ResourceError) as caught:
        draw(trained, tmp_path, generate__count=3, generate__batch_size=3)
    assert sizes == [3, 1]
    assert "generate.width" in caught.value.hint


def test_another_failure_is_not_taken_for_too_little_memory(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("cictl.engine.sampling.sample", raising(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes"):
        draw(trained, tmp_path, generate__count=3)


def raising(error: Exception):
    def fail(*arguments, **settings):
        raise error

    return fail


def test_each_prompt_is_encoded_once_and_nothing_is_loaded_again(trained, tmp_path, monkeypatch):
    from cictl.models.stable_diffusion import StableDiffusion

    encoded, loads = [], []
    encode, load = StableDiffusion.encode_text, StableDiffusion.load.__func__
    monkeypatch.setattr(StableDiffusion, "encode_text", lambda model, ids: encoded.extend(ids.tolist()) or encode(model, ids))
    monkeypatch.setattr(
        StableDiffusion, "load", classmethod(lambda cls, *given, **how: loads.append(given) or load(cls, *given, **how))
    )
    monkeypatch.setattr("cictl.workflow.pictures._TEXTS", 2)
    prompts = ["a photo of S*", "a red S* on the beach", "S* in the snow"]
    draw(trained, tmp_path, *prompts, generate__count=3, generate__batch_size=2)
    assert len(encoded) == len({tuple(ids) for ids in encoded}) == 4  # and the negative prompt
    assert len(loads) == 1


def test_pictures_that_are_there_are_kept_and_missing_ones_are_made(trained, tmp_path):
    _, paths = draw(trained, tmp_path, generate__count=4)
    content = [path.read_bytes() for path in paths]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    paths[2].write_bytes(content[2][: len(content[2]) // 2])
    recorder = Recorder()
    _, again = draw(trained, tmp_path, generate__count=4, observe=recorder)
    assert again == paths
    assert [event for event in recorder.events if isinstance(event, PicturesPlanned)] == [PicturesPlanned(4, 2)]
    for number, path in enumerate(paths):
        assert np.abs(pixels(path) - pixels_of(content[number])).max() <= 1
        assert (path.stat().st_mtime_ns == times[number]) == (number in (0, 3))
    recorder = Recorder()
    outcome, _ = draw(trained, tmp_path, generate__count=4, observe=recorder)
    assert outcome.kept == 4
    assert not any(isinstance(event, SamplingStep) for event in recorder.events)


def pixels_of(content: bytes) -> np.ndarray:
    import io

    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def test_a_remade_picture_is_not_counted_as_kept(trained, tmp_path):
    _, paths = draw(trained, tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:100])
    outcome, _ = draw(trained, tmp_path)
    assert outcome.kept == len(paths) - 1


def test_an_interrupted_generation_keeps_what_is_finished_and_makes_the_rest(trained, tmp_path):
    import os
    import signal

    seen = []

    def observe(event) -> None:
        if isinstance(event, SamplingStep):
            seen.append(event)
            if len(seen) == 4:  # the first step of the second picture
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        draw(trained, tmp_path, observe=observe, generate__batch_size=1, generate__count=3)
    assert caught.value.stopped_with == 130
    [done] = tmp_path.glob("*.png")
    modified = done.stat().st_mtime_ns
    outcome, paths = draw(trained, tmp_path, generate__batch_size=1, generate__count=3)
    assert (outcome.kept, len(paths)) == (1, 3)
    assert paths[0] == done
    assert done.stat().st_mtime_ns == modified


@pytest.mark.parametrize(
    "change",
    [{"seed": 5}, {"generate__steps": 4}, {"generate__guidance": 2.0}, {"generate__sampler": "euler"},
     {"generate__negative": "dog"}, {"generate__width": 96}, {"generate__strength": 0.5},
     {"generate__height": 96}, {"generate__avoid": 0.5}, {"source": "invert"}, {"model__dtype": "bf16"}],
)  # fmt: skip
def test_whatever_changes_the_picture_gives_it_another_name(trained, tmp_path, change):
    _, one = draw(trained, tmp_path, generate__count=1)
    _, other = draw(trained, tmp_path, generate__count=1, **change)
    assert one != other
    a, b = pixels(one[0]), pixels(other[0])
    assert a.shape != b.shape or np.abs(a - b).max() > 0


@pytest.mark.parametrize(("sampler", "named"), [("ddim", "DDIM"), ("dpm++", "DPM++ 2M"), ("euler", "Euler"), ("unipc", "UniPC")])
def test_every_sampler_draws_and_is_named_as_other_programs_name_it(trained, tmp_path, sampler, named):
    _, [path] = draw(trained, tmp_path, generate__sampler=sampler, generate__count=1)
    assert pixels(path).shape == (64, 64, 3)
    assert pixels(path).std() > 1
    with Image.open(path) as image:
        assert f", Sampler: {named}, " in image.text["parameters"]


def test_width_and_height_are_those_asked_for(trained, tmp_path):
    _, [path] = draw(trained, tmp_path, generate__width=96, generate__height=64, generate__count=1)
    with Image.open(path) as image:
        assert image.size == (96, 64)
        assert ", Size: 96x64, " in image.text["parameters"]


# -- metadata ---------------------------------------------------------------------------------------


def test_a_picture_says_how_it_was_made_and_nothing_about_this_machine(trained, tmp_path, base):
    _, [path] = draw(trained, tmp_path, generate__count=1, seed=7, generate__negative="dog")
    with Image.open(path) as image:
        texts = dict(image.text)
    assert set(texts) == {"parameters", "cictl"}
    first, negative, rest = texts["parameters"].splitlines()
    assert first == "a cube shaped <my-teapot> <my-teapot>_1, in the snow"
    assert negative == "Negative prompt: dog"
    assert rest.startswith("Steps: 3, Sampler: DDIM, CFG scale: 5, Seed: 7, Size: 64x64, Model hash: ")
    facts = json.loads(texts["cictl"])
    assert facts["prompt"] == PROMPT
    assert (facts["seed"], facts["steps"], facts["sampler"], facts["base"]) == (7, 3, "ddim", "tiny-base")
    content = path.read_bytes()
    for secret in (str(base), str(base.parent), str(trained.root), str(tmp_path), "/tmp", "/home"):
        assert secret.encode() not in content


def test_a_picture_can_say_nothing(trained, tmp_path):
    _, [path] = draw(trained, tmp_path, generate__count=1, metadata=False)
    with Image.open(path) as image:
        assert not image.text
        assert image.info.keys() <= {"srgb", "gamma"}
    content = path.read_bytes()
    assert b"tEXt" not in content
    assert b"iTXt" not in content
    assert b"teapot" not in content


def test_a_picture_made_before_with_metadata_loses_it_when_none_is_asked_for(trained, tmp_path):
    draw(trained, tmp_path, generate__count=1)
    _, [path] = draw(trained, tmp_path, generate__count=1, metadata=False)
    with Image.open(path) as image:
        assert not image.text


def test_prompts_in_every_script_are_kept_in_the_metadata(trained, tmp_path):
    prompt = "S* у самовара 茶壺 ☕"
    _, [path] = draw(trained, tmp_path, prompt, generate__count=1)
    with Image.open(path) as image:
        assert json.loads(image.text["cictl"])["prompt"] == prompt
    assert path.name.isascii()


# -- prompts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prompt", "meant"), [("a photo of s*", "s*"), ("a photo of S *", "S *")])
def test_a_prompt_that_nearly_names_the_concept_is_refused_with_what_was_meant(trained, prompt, meant):
    with pytest.raises(UsageError, match="does not mention S") as caught:
        generate.run(trained, [prompt], silent)
    assert caught.value.exit_code == 2
    assert f'did you mean S* where it says {meant}? cictl generate "a photo of S*"\n' in caught.value.hint


@pytest.mark.parametrize("prompts", [["a photo of a cat"], ["cats*"], ["S*", "a dog"], [], [""], ["  "]])
def test_a_prompt_without_the_concept_is_refused(trained, prompts):
    with pytest.raises(UsageError) as caught:
        generate.run(trained, prompts, silent)
    assert "did you mean" not in caught.value.hint


def test_the_untouched_base_draws_without_the_concept_and_refuses_it(trained, tmp_path):
    _, paths = draw(trained, tmp_path, "a photo of a cat", source="base")
    assert all(path.exists() for path in paths)
    with pytest.raises(UsageError, match="does not know"):
        generate.run(trained, ["S*"], silent, source="base")


def test_what_an_overlong_prompt_loses_is_said_in_words(trained, tmp_path):
    recorder = Recorder()
    draw(trained, tmp_path, "S* " + "cat " * (LENGTH - 4) + "in the snow", observe=recorder, generate__count=1)
    [warning] = recorder.texts(Warned)
    assert warning.startswith("the prompt 'S* cat cat cat") and warning.endswith("it loses: in the snow")


def test_the_concept_in_a_negative_prompt_is_its_token_and_an_overlong_one_is_warned_of(trained, tmp_path):
    recorder = Recorder()
    _, [path] = draw(trained, tmp_path, observe=recorder, generate__count=1, generate__negative="a S* " + "dog " * LENGTH)
    with Image.open(path) as image:
        negative = json.loads(image.info["cictl"])["negative"]
    assert negative.startswith("a <my-teapot> <my-teapot>_1 dog")
    [warning] = recorder.texts(Warned)
    assert warning.startswith("the negative prompt is longer") and "it loses: dog" in warning


def test_of_a_very_long_prompt_the_beginning_of_what_it_loses_is_enough(trained, tmp_path):
    recorder = Recorder()
    few = {"generate__count": 1, "generate__steps": 1}
    draw(trained, tmp_path, "S* " + "cat " * (LENGTH - 4) + "in the snow " * 70, observe=recorder, **few)
    [warning] = recorder.texts(Warned)
    assert len(warning) < 250 and "it loses: in the snow in" in warning and warning.endswith(" ... (210 words)")


def test_nothing_can_be_drawn_before_stage_1(make_workspace):
    with pytest.raises(StateError, match="stage 1 has not been run") as caught:
        generate.run(make_workspace(), [PROMPT], silent)
    assert caught.value.hint == "cictl invert"


def test_stage_2_changes_the_picture(trained, tmp_path):
    _, [tuned] = draw(trained, tmp_path, generate__count=1)
    _, [inverted] = draw(trained, tmp_path, generate__count=1, source="invert")
    assert np.abs(pixels(tuned) - pixels(inverted)).max() > 0


def test_strength_goes_from_stage_1_to_all_of_stage_2(trained, tmp_path):
    """At 0 the picture is that of stage 1, bit for bit; on the way it moves away from one and towards the other."""
    whole = pixels(draw(trained, tmp_path, generate__count=1)[1][0])
    none = pixels(draw(trained, tmp_path, generate__count=1, source="invert")[1][0])
    drawn = [pixels(draw(trained, tmp_path, generate__count=1, generate__strength=one)[1][0]) for one in (0.0, 0.25, 0.75)]
    assert np.array_equal(drawn[0], none)
    to_none, to_whole = ([np.abs(one - end).mean() for one in drawn] for end in (none, whole))
    assert to_none[0] < to_none[1] < to_none[2] and to_whole[0] > to_whole[1] > to_whole[2]


def test_where_nothing_in_the_unet_has_changed_a_strength_makes_no_difference(trained, tmp_path):
    _, plain = draw(trained, tmp_path, generate__count=1, source="invert")
    recorder = Recorder()
    outcome, weaker = draw(trained, tmp_path, generate__count=1, source="invert", generate__strength=0.5, observe=recorder)
    assert weaker == plain and outcome.kept == 1
    assert any("makes no difference" in text for text in recorder.texts(Note))


@pytest.mark.parametrize(
    ("source", "settings", "why"),
    [("base", {}, "it has no A*"), ("invert", {"generate__guidance": 1.0}, "no guidance")],
)
def test_where_there_is_nothing_to_avoid_avoiding_makes_no_difference(trained, tmp_path, source, settings, why):
    prompt, recorder = "a cat" if source == "base" else PROMPT, Recorder()
    _, plain = draw(trained, tmp_path, prompt, generate__count=1, source=source, **settings)
    outcome, again = draw(
        trained, tmp_path, prompt, generate__count=1, source=source, generate__avoid=0.5, observe=recorder, **settings
    )
    assert again == plain and outcome.kept == 1
    assert any(why in text for text in recorder.texts(Note))


def test_avoiding_draws_as_a_negative_prompt_that_is_all_of_the_auxiliary_tokens_would(trained, tmp_path, monkeypatch):
    """What the sampler is given, against the encodings of "A photo of A_i*" one by one."""
    from cictl.engine import sampling
    from cictl.workflow.concept import find_concept

    whole, given = sampling.sample, []

    def sample(model, context, negative, seeds, **settings):
        given.append((model, negative))
        return whole(model, context, negative, seeds, **settings)

    monkeypatch.setattr(sampling, "sample", sample)
    draw(trained, tmp_path, generate__count=1, generate__avoid=0.25, generate__negative="dog")
    [(model, negative)] = given
    tokens = find_concept(trained, "finetune", silent).tokens()
    model.add_tokens(tokens)  # they were taken out again
    texts = [f"A photo of {' '.join(tokens.auxiliary_names(index))}" for index in range(len(tokens.keys))]
    with torch.no_grad():
        own = [model.encode_text(model.tokenize([text]))[0] for text in texts]
        dog = model.encode_text(model.tokenize(["dog"]))[0]
    torch.testing.assert_close(negative[0], 0.75 * dog + 0.25 * sum(own) / len(own), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("key", "default"), [("strength", 1.0), ("avoid", 0.0)])
def test_a_picture_says_its_strength_and_what_it_avoids_unless_it_is_as_in_the_paper(trained, tmp_path, key, default):
    texts = []
    for value in (default, 0.5):
        with Image.open(draw(trained, tmp_path, generate__count=1, **{f"generate__{key}": value})[1][0]) as image:
            texts.append(dict(image.text))
    assert key not in (texts[0]["parameters"] + texts[0]["cictl"]).lower()
    assert f"{key.title()}: 0.5, " in texts[1]["parameters"] and json.loads(texts[1]["cictl"])[key] == 0.5


def test_a_grid_has_a_row_for_each_prompt(trained, tmp_path):
    outcome, _ = draw(trained, tmp_path, "S*", "a red S*", grid=True)
    with Image.open(tmp_path / outcome.grid.rpartition("/")[2]) as image:
        assert image.width > 2 * 192
        assert image.height > 2 * 192


def test_a_grid_whose_rows_stand_otherwise_takes_the_place_of_no_other(trained, tmp_path):
    first, *others = "S*", "a red S*", "a blue S*"
    one, other = (
        draw(trained, tmp_path, first, *rest, grid=True, generate__count=1, generate__steps=1)[0]
        for rest in (others, others[::-1])
    )
    assert one.grid != other.grid


def test_a_prompt_of_several_lines_stands_on_one_above_its_pictures(copy_of_trained, tmp_path):
    few = {"generate.count": 1, "generate.steps": 1}
    outcome = generate.run(copy_of_trained, ["S*\nin the snow"], silent, overrides=few, out=tmp_path, grid=True)
    assert outcome.grid


# -- preview-aux ------------------------------------------------------------------------------------


def test_preview_aux_draws_each_auxiliary_token_and_the_concept_alone(copy_of_trained):
    outcome = preview_aux.run(copy_of_trained, silent)
    [sheet] = copy_of_trained.outputs.glob("preview-aux-*.png")
    assert outcome.sheet.endswith(sheet.name)
    with Image.open(sheet) as image:
        assert image.height > 4 * 192
    pictures = sorted((copy_of_trained.outputs / "preview-aux").glob("*.png"))
    assert len(pictures) == len(outcome.pictures) == 2 * 4
    drawn = [pixels(path) for path in pictures]
    for i, one in enumerate(drawn):
        assert all(np.abs(one - other).max() > 0 for other in drawn[:i])
    modified = [path.stat().st_mtime_ns for path in pictures]
    preview_aux.run(copy_of_trained, silent)
    assert [path.stat().st_mtime_ns for path in pictures] == modified


def test_preview_aux_does_not_avoid_what_it_shows(copy_of_trained):
    plain = preview_aux.run(copy_of_trained, silent, overrides={"generate.count": 1})
    assert preview_aux.run(copy_of_trained, silent, overrides={"generate.count": 1, "generate.avoid": 1.0}) == plain


def test_preview_aux_is_drawn_by_the_untouched_base(copy_of_trained):
    from cictl.records import checkpoint_folders

    preview_aux.run(copy_of_trained, silent)
    before = {path.name: path.read_bytes() for path in (copy_of_trained.outputs / "preview-aux").iterdir()}
    for path in (copy_of_trained.outputs / "preview-aux").iterdir():
        path.unlink()
    for folder in checkpoint_folders(copy_of_trained.stage_folder("finetune")):
        folder.rename(folder.with_name("elsewhere-" + folder.name))
    preview_aux.run(copy_of_trained, silent)
    assert {path.name: path.read_bytes() for path in (copy_of_trained.outputs / "preview-aux").iterdir()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_photographs_with_names_that_are_no_line_of_text_are_shown(copy_of_trained):
    one, other, _ = sorted(copy_of_trained.images.iterdir())
    one.rename(one.with_name("new\nline.png"))
    other.rename(other.with_name(os.fsdecode(b"caf\xe9.png")))
    few = {"generate.count": 1, "generate.steps": 1}
    preview = preview_aux.run(copy_of_trained, silent, overrides=few)
    assert [one["prompt"] for one in preview.pictures[1:]] == [
        "A photo of A* ('caf\\udce9.png')", "A photo of A* ('new\\nline.png')", "A photo of A* (photo-2.png)",
    ]  # fmt: skip
    seen = attention.run(copy_of_trained, None, silent, overrides=few)
    assert "'new\\nline.png'" in {share.over for share in seen.shares}
    assert attention.run(copy_of_trained, None, silent, overrides=few).kept


def test_preview_aux_needs_auxiliary_tokens(make_workspace):
    from cictl.workflow import invert

    workspace = make_workspace(invert__auxiliary_vectors=0)
    invert.run(workspace, silent, overrides={"invert.steps": 1})
    with pytest.raises(StateError, match="no auxiliary tokens") as caught:
        preview_aux.run(workspace, silent)
    assert caught.value.exit_code == 3
    assert "invert.auxiliary_vectors=4" in caught.value.hint


def test_preview_aux_needs_the_photographs_of_stage_1(copy_of_trained):
    (copy_of_trained.images / "photo-0.png").write_bytes((copy_of_trained.images / "photo-1.png").read_bytes()[:-1] + b"x")
    with pytest.raises((StateError, UsageError)):
        preview_aux.run(copy_of_trained, silent)
    (copy_of_trained.images / "photo-0.png").unlink()
    with pytest.raises(StateError, match="of the photographs that stage 1 was trained with, 1 is no longer in"):
        preview_aux.run(copy_of_trained, silent)


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_previews_in_the_middle_of_training_are_drawn_as_pictures_are_and_change_no_bit(copy_of_trained, stage):
    from cictl.workflow import finetune, invert
    from tests.support import assert_same_bits, left_by

    train = {"invert": invert, "finetune": finetune}[stage].run
    write_settings(copy_of_trained, {"seed": 3})
    train(copy_of_trained, silent, restart=True)
    before = left_by(copy_of_trained, stage)
    write_settings(copy_of_trained, {"preview.interval": 2, "preview.steps": 2, "preview.prompt": "a red S*"})
    train(copy_of_trained, silent, restart=True)
    assert_same_bits(left_by(copy_of_trained, stage).state, before.state)
    pictures = sorted((copy_of_trained.outputs / "previews").iterdir())
    assert [path.name for path in pictures] == [f"{stage}-step-{step:07d}.png" for step in range(2, before.step + 1, 2)]
    as_usual = {"generate.steps": 2, "generate.count": 1}
    [drawn] = generate.run(copy_of_trained, ["a red S*"], silent, source=stage, overrides=as_usual).pictures
    assert np.abs(pixels(drawn["path"]) - pixels(pictures[-1])).max() <= 1

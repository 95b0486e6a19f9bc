"""The other methods as commands: train, go on with the same bits, draw, and say what they need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cictl.config import METHODS
from cictl.engine.speed import Speed
from cictl.errors import Interrupted, StateError, UsageError
from cictl.events import Note, PicturesPlanned, Warned
from cictl.models.stable_diffusion import StableDiffusion
from cictl.records import RESULT, STATE, checkpoint_folders, step_folder
from cictl.workflow import baseline, check, generate, status
from cictl.workflow.class_pictures import require_same_class_pictures
from cictl.workflow.concept import find_concept
from cictl.workflow.drawing import install, words_of
from cictl.workspace import Workspace
from tests.support import Recorder, assert_left_the_same, assert_same_bits, left_by, silent

QUICK = {
    "evaluate.noun": "dog", "dreambooth.prior_weight": 1.0, "dreambooth.class_pictures": 3, "dreambooth.learning_rate": 1e-3,
    "custom_diffusion.class_pictures": 3, "custom_diffusion.views": 3, "custom_diffusion.learning_rate": 1e-2,
    "disenbooth.learning_rate": 1e-2, "textual_inversion.learning_rate": 0.1, "custom_diffusion.prompt": "a photo of S*",
}  # fmt: skip
STANDS_FOR = {
    "textual-inversion": "<my-teapot>", "dreambooth": "sks dog", "custom-diffusion": "<my-teapot> dog", "disenbooth": "sks dog",
}  # fmt: skip


def train(workspace, method, steps=2, observe=silent, **overrides):
    changes = {**QUICK, f"{method.replace('-', '_')}.steps": steps}
    changes |= {key.replace("__", "."): value for key, value in overrides.items()}
    return baseline.run(workspace, method, observe, overrides=changes)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, base, photographs) -> Workspace:
    """All methods, two steps each, uninterrupted."""
    from cictl.workflow import init
    from tests.support import quick, write_settings

    workspace = init.run(tmp_path_factory.mktemp("learned") / "my-teapot", model=str(base), images=photographs, name="my-teapot")
    write_settings(workspace, quick(base))
    for method in METHODS:
        outcome = train(workspace, method)
        assert (outcome.action, outcome.steps, outcome.stage) == ("run", 2, method)
    return workspace


@pytest.fixture(params=METHODS)
def method(request) -> str:
    return request.param


@pytest.fixture
def before(learned: Workspace, method: str, tmp_path: Path) -> Workspace:
    workspace = Workspace(shutil.copytree(learned.root, tmp_path / "before"))
    shutil.rmtree(workspace.stage_folder(method))
    return workspace


def draw(workspace, source, out, prompt="a photo of S*"):
    outcome = generate.run(workspace, [prompt], silent, source=source, out=out, overrides={"generate.count": 1})
    with Image.open(out / Path(outcome.pictures[0]["path"]).name) as image:
        return np.asarray(image).astype(int), dict(image.text)


def test_a_stopped_training_goes_on_to_the_same_bits(learned, before, method):
    with pytest.raises(Interrupted, match="stopped after 1 of 2 steps") as caught:
        train(before, method, observe=Recorder(stop_after=1), tracking__interval=1)
    assert caught.value.hint == f"cictl baseline {method} goes on from there"
    outcome = train(before, method)
    assert (outcome.action, outcome.first_step) == ("resume", 1)
    assert_left_the_same(left_by(before, method), left_by(learned, method))
    assert train(before, method).action == "skip"


def test_parts_of_a_batch_and_class_pictures_are_drawn_alike(before, method):
    train(before, method, **{f"{method.replace('-', '_')}__batch_size": 4, f"{method.replace('-', '_')}__accumulation": 4})
    one = left_by(before, method)
    shutil.rmtree(before.stage_folder(method))
    train(before, method, **{f"{method.replace('-', '_')}__batch_size": 4})
    for (_, parts), (_, whole) in zip(one.losses, left_by(before, method).losses, strict=True):
        assert parts == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(("method", "norm"), [
    ("textual-inversion", None), ("dreambooth", 1.0), ("custom-diffusion", 1.0), ("disenbooth", 1.0),
])  # fmt: skip
def test_gradients_are_clipped_where_the_methods_public_code_clips_them(make_workspace, monkeypatch, method, norm):
    given = []

    def fit(*_: object, gradient_clip: float | None, **__: object) -> int:
        given.append(gradient_clip)
        raise UsageError("enough", "", slug="settings-invalid")

    monkeypatch.setattr("cictl.engine.training.fit", fit)
    with pytest.raises(UsageError, match="enough"):
        train(make_workspace(), method)
    assert given == [norm]


def made_with(workspace, method: str, where: str, monkeypatch, **overrides: object) -> tuple[Any, ...]:
    """What the class of a method, at ``where``, is made with in a training, which ends there."""
    given: list[tuple[Any, ...]] = []

    def make(*arguments: Any) -> None:
        given.append(arguments)
        raise UsageError("enough", "", slug="settings-invalid")

    monkeypatch.setattr(where, make)
    with pytest.raises(UsageError, match="enough"):
        train(workspace, method, **overrides)
    return given[0]


def test_textual_inversion_of_a_style_trains_with_prompts_of_a_style_unless_it_is_given_others(make_workspace, monkeypatch):
    def prompts(kind: str, **overrides: object) -> set[bool]:
        given = {"concept__kind": kind, **overrides}
        made = made_with(workspace, "textual-inversion", where, monkeypatch, **given)
        return {prompt.endswith("in the style of S*") for prompt in made[2]}

    where, workspace = "cictl.methods.textual_inversion.TextualInversion", make_workspace()
    assert (prompts("style"), prompts("object"), prompts("pose")) == ({True}, {False}, {False})
    assert prompts("object", textual_inversion__prompts=["a hat in the style of S*"]) == {True}


def test_the_seed_decides_how_custom_diffusion_rescales_photographs(make_workspace, monkeypatch):
    where, workspace = "cictl.methods.custom_diffusion.CustomDiffusion", make_workspace()
    plain = {"custom_diffusion__prior_weight": 0.0, "custom_diffusion__augment": True}
    one, same, other = (
        made_with(workspace, "custom-diffusion", where, monkeypatch, seed=seed, **plain)[2:4] for seed in (3, 3, 4)
    )  # prompts and masks
    assert one[0] == same[0] and torch.equal(one[1], same[1])
    assert one[0] != other[0] and not torch.equal(one[1], other[1])


def test_it_draws_what_it_has_learned_and_the_prompt_says_what_s_stands_for(learned, method, tmp_path):
    pixels, texts = draw(learned, method, tmp_path)
    assert f"a photo of {STANDS_FOR[method]}\n" in texts["parameters"]
    other, _ = draw(learned, "base", tmp_path, f"a photo of {STANDS_FOR[method]}")
    assert np.abs(pixels - other).max() > 1


def test_what_is_put_in_draws_what_training_left(learned, method, located):
    """The method's own UNet and text encoder, after the last step, against those that generation makes from its result."""
    concept = find_concept(learned, method, silent)
    drawing, plain = (StableDiffusion.load(located, torch.device("cpu"), torch.float32) for _ in range(2))
    install(concept, drawing)
    saved = left_by(learned, method).state
    noisy, times = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    text = f"a photo of {' '.join(words_of(concept))}"
    with torch.no_grad():
        given = drawing.predict(noisy, times, drawing.encode_text(drawing.tokenize([text])))
        if "parameter.concept" in saved:
            tokens = concept.tokens()
            assert torch.equal(tokens.concept, saved["parameter.concept"])
            plain.add_tokens(tokens)
        unet = dict(plain.unet.named_parameters())
        for name, weight in saved.items():
            kind, _, own = name.partition(".")
            if kind == "parameter" and own.endswith(".up"):
                unet[f"{own.removesuffix('.up')}.weight"] += weight @ saved[name.removesuffix("up") + "down"]
            elif kind == "parameter" and own.endswith((".key", ".value")):
                layer, _, part = own.rpartition(".")
                unet[f"{layer}.to_{part[0]}.weight"].copy_(weight)
            elif kind == "parameter" and own in unet:
                unet[own].copy_(weight)
        expected = plain.predict(noisy, times, plain.encode_text(plain.tokenize([text])))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_with_strength_0_only_the_token_is_put_in_and_half_of_it_is_half_way(learned, method, located):
    """What the UNet predicts at 0 is the base's; the weights that training changed are at 1/2 the mean of both."""
    concept = find_concept(learned, method, silent)
    noisy, times = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    predicted, models = {}, {}
    for strength in (None, 0.0, 0.5, 1.0):
        models[strength] = model = StableDiffusion.load(located, torch.device("cpu"), torch.float32)
        if strength is not None:
            install(concept, model, strength)
        with torch.no_grad():
            predicted[strength] = model.predict(noisy, times, model.encode_text(model.tokenize(["a photo"])))
    assert torch.equal(predicted[0.0], predicted[None])
    assert torch.equal(predicted[1.0], predicted[None]) == (method == "textual-inversion")
    none, half, whole = (dict(models[strength].unet.named_parameters()) for strength in (0.0, 0.5, 1.0))
    for name, weight in half.items():
        ends = none[name], whole[name]
        torch.testing.assert_close(weight, (ends[0] + ends[1]) / 2)


def test_what_was_put_in_is_taken_out_again_to_the_bit(learned, method, located):
    model, untouched = (StableDiffusion.load(located, torch.device("cpu"), torch.float32) for _ in range(2))
    concept = find_concept(learned, method, silent)
    for _ in range(2):  # the second time it finds what it found the first time
        install(concept, model)()
    for part in ("unet", "text_encoder"):
        assert_same_bits(getattr(model, part).state_dict(), getattr(untouched, part).state_dict())
    processors = [{name: type(one) for name, one in each.unet.attn_processors.items()} for each in (model, untouched)]
    assert processors[0] == processors[1] and len(model.tokenizer) == len(untouched.tokenizer)


def test_a_dry_run_says_what_is_left_what_it_takes_and_how_many_class_pictures_are_missing(before, learned, method, monkeypatch):
    monkeypatch.setattr("cictl.engine.speed.measure_speed", lambda device, dtype: Speed(1e11, 2e-6))
    with_prior = method in ("dreambooth", "custom-diffusion")
    overrides = {**QUICK, f"{method.replace('-', '_')}.steps": 5}
    foreseen = baseline.run(learned, method, silent, overrides=overrides, dry_run=True)
    assert (foreseen.action, foreseen.first_step, foreseen.steps) == ("resume", 2, 5)
    left, _ = check.expect(learned, method, silent, overrides, done=foreseen.first_step)
    assert (left.steps, left.class_pictures, left.drawing) == (3, 0, 0)
    newest, *_ = checkpoint_folders(learned.stage_folder(method))
    result, state = load_file(newest / RESULT), load_file(newest / STATE)
    written = sum(tensor.nbytes for part in (result, state) for tensor in part.values())
    tokens = 3 * result["concept"].nbytes if "concept" in result else 0
    assert left.checkpoint <= written - tokens < left.checkpoint + 8 * len(state)  # beside it the optimizer's step counts

    files = {path: path.read_bytes() for path in before.root.rglob("*") if path.is_file()}
    everything, _ = check.expect(before, method, silent, overrides)
    assert everything.seconds == pytest.approx(left.seconds * 5 / 3) and everything.memory == left.memory
    assert {path: path.read_bytes() for path in before.root.rglob("*") if path.is_file()} == files
    for path in sorted((before.outputs / "class").iterdir())[:2]:
        path.unlink()
    missing, _ = check.expect(before, method, silent, overrides)
    assert missing.class_pictures == (2 if with_prior else 0) and (missing.drawing > 0) == with_prior


def test_class_pictures_are_drawn_once(before):
    for method in ("dreambooth", "custom-diffusion"):
        if before.stage_folder(method).exists():
            shutil.rmtree(before.stage_folder(method))
        files = {path: path.stat().st_mtime_ns for path in (before.outputs / "class").glob("*.png")}
        assert len(files) == 3  # both ask for the same prompt
        recorder = Recorder()
        train(before, method, observe=recorder, generate__guidance=1.0, generate__steps=2)  # how pictures are drawn is no matter
        assert PicturesPlanned(3, 3) in recorder.events
        assert {path: path.stat().st_mtime_ns for path in (before.outputs / "class").glob("*.png")} == files
        assert any("class pictures: 3 of 'a photo of dog'" in text for text in recorder.texts(Note))


@pytest.mark.parametrize("method", ["dreambooth", "custom-diffusion"])
def test_other_class_pictures_than_those_it_began_with_are_refused(before, method):
    """Because the safety checker was off for the first run, say, or a file was drawn over: not by a word, but by other bits."""
    with pytest.raises(Interrupted):
        train(before, method, observe=Recorder(stop_after=1), tracking__interval=1, generate__safety_checker="off")
    path = sorted((before.outputs / "class").glob("*.png"))[0]
    whole = path.read_bytes()
    with Image.open(path) as image:
        Image.new("RGB", image.size, "red").save(path, pnginfo=None)
    with pytest.raises(StateError, match="seen 3 class pictures so far, and would now see 3, of them 2") as caught:
        train(before, method)
    folder = before.shown(before.outputs / "class")
    again = f"delete {folder}, then: cictl baseline {method} --set generate.safety_checker=off"
    assert caught.value.slug == "class-pictures-changed" and again in caught.value.hint
    with pytest.raises(StateError) as caught:
        train(before, method, generate__safety_checker="off")
    assert f"as they were: delete {folder}; or" in caught.value.hint
    path.write_bytes(whole)
    assert train(before, method).action == "resume"


def manifest(seen: list[str], *, checker: str = "auto", torch: str = "2.5", batch_size: int = 4) -> dict[str, Any]:
    """What class pictures depend on, as a checkpoint says it."""
    config = {"generate": {"safety_checker": checker, "batch_size": batch_size}}
    return {"stage": "dreambooth", "class_pictures": seen, "config": config, "circumstances": {"torch": torch, "python": "3"}}


@pytest.mark.parametrize(
    ("now", "way"),
    [
        ({"seen": ["a", "c"]}, "as they were: delete"),
        ({"seen": ["a", "c"], "torch": "2.6"}, "set back what differs (torch 2.5 -> 2.6), then delete"),
        ({"seen": ["a", "c"], "batch_size": 8}, "set back what differs (generate.batch_size 4 -> 8), then delete"),
        ({"seen": ["a"], "checker": "off"}, "to go on: cictl baseline dreambooth --set generate.safety_checker=auto; or"),
        ({"seen": ["a", "b", "c"], "checker": "off", "torch": "2.6"}, "to go on: cictl baseline dreambooth --set"),
        ({"seen": ["a", "c"], "checker": "off"}, "class, then: cictl baseline dreambooth --set generate.safety_checker=auto; or"),
    ],
)
def test_the_way_to_the_same_class_pictures_is_one_that_leads_there(tmp_path, now, way):
    with pytest.raises(StateError) as caught:
        require_same_class_pictures(Workspace(tmp_path), manifest(["a", "b"]), manifest(**now))
    assert way in caught.value.hint and "--restart" in caught.value.hint


def test_without_a_noun_it_says_what_to_type(make_workspace, method):
    workspace = make_workspace()
    if method == "textual-inversion":
        assert baseline.run(workspace, method, silent, overrides={"textual_inversion.steps": 1}).steps == 1
        return
    with pytest.raises(UsageError) as caught:
        baseline.run(workspace, method, silent)
    assert (caught.value.slug, caught.value.hint) == ("noun-missing", f"for example: cictl baseline {method} --noun teapot")
    assert not workspace.stage_folder(method).exists()
    with pytest.raises(UsageError) as again:  # else the next command would not start anew
        baseline.run(workspace, method, silent, restart=True)
    assert again.value.hint == f"for example: cictl baseline {method} --restart --noun teapot"


def test_the_command_that_starts_anew_for_another_noun_names_it(learned):
    other = {**QUICK, "textual_inversion.steps": 2, "evaluate.noun": "stuffed cat"}
    with pytest.raises(StateError, match="has changed") as caught:
        baseline.run(learned, "textual-inversion", silent, overrides=other)
    assert 'cictl baseline textual-inversion --noun "stuffed cat" --restart' in caught.value.hint


def test_the_noun_of_the_training_stays_with_it(learned, method, tmp_path):
    """Another noun, for CLIP's reading of prompts, changes no picture; for training it is another training."""
    outcome = generate.run(learned, ["S*"], silent, source=method, out=tmp_path, overrides={"evaluate.noun": "cat"})
    with Image.open(tmp_path / Path(outcome.pictures[0]["path"]).name) as image:
        assert image.text["parameters"].startswith(f"{STANDS_FOR[method]}\n")
    with pytest.raises(StateError, match=r"evaluate\.noun: dog -> cat") as caught:
        train(learned, method, evaluate__noun="cat")
    assert f'start anew: cictl baseline {method} --noun "cat" --restart' in caught.value.hint


def test_settings_of_other_methods_and_of_our_stages_change_nothing_for_it(learned, method):
    others = {f"{other.replace('-', '_')}__learning_rate": 0.5 for other in METHODS if other != method}
    assert train(learned, method, invert__learning_rate=0.5, finetune__auxiliary_scale=0.5, **others).action == "skip"


def test_a_method_that_was_not_trained_cannot_draw(make_workspace, method):
    with pytest.raises(StateError) as caught:
        generate.run(make_workspace(), ["S*"], silent, source=method)
    needs_a_word = "for example: {} --noun teapot" if method != "textual-inversion" else "{}"
    assert (caught.value.slug, caught.value.hint) == ("method-not-trained", needs_a_word.format(f"cictl baseline {method}"))


def test_status_names_the_methods_that_were_begun_and_no_others(learned, make_workspace, tmp_path):
    found = {one.stage: (one.step, one.state) for one in status.run(learned).methods}
    assert found == dict.fromkeys(METHODS, (2, "done"))
    assert status.run(make_workspace()).methods == []
    assert status.run(learned).next == "cictl invert"


def test_a_training_that_is_not_done_draws_with_a_warning(learned, method, tmp_path):
    recorder = Recorder()
    copy = Workspace(shutil.copytree(learned.root, tmp_path / "copy"))
    with pytest.raises(Interrupted):
        train(copy, method, steps=9, observe=Recorder(stop_after=4), tracking__interval=1)
    find_concept(copy, method, recorder)
    assert recorder.texts(Warned) == [f"cictl baseline {method} is at 4 of 9 steps"]
    (copy.stage_folder(method) / step_folder(4) / RESULT).write_bytes(b"")
    assert find_concept(copy, method, recorder).steps == 2
    assert any(f"{method}/{step_folder(4)} is passed over" in text for text in recorder.texts(Warned))


def test_a_snapshot_along_the_way_draws_as_a_training_that_ended_there(learned, before, method, tmp_path):
    """Two steps of four: equal in every bit to a training of two."""
    train(before, method, steps=4, checkpoint__snapshots=1)
    along, ended = (find_concept(where, method, silent, step) for where, step in ((before, 2), (learned, None)))
    assert along.steps == ended.steps == 2 and along.hash == ended.hash
    assert find_concept(before, method, silent).hash != along.hash
    made = generate.run(before, ["a photo of S*"], silent, overrides={"generate.count": 1}, source=method, step=2, out=tmp_path)
    assert len(made.pictures) == 1
    with pytest.raises(StateError, match="kept nothing of step 3, but of: 2, 4") as caught:
        find_concept(before, method, silent, 3)
    assert caught.value.hint.startswith("--step 4, or leave --step out")

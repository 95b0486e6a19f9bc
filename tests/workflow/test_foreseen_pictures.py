"""`--dry-run` of what draws says what is then done, refuses what is then refused, and leaves everything as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.errors import CictlError
from cictl.events import PicturesPlanned
from cictl.workflow import attention, evaluate, export, generate, preview_aux
from cictl.workflow.foreseen_pictures import foresee_attention, foresee_evaluation, foresee_pictures, foresee_preview
from tests.evaluation_models import make_clip
from tests.support import Recorder, silent


@pytest.fixture
def quick(tmp_path, base) -> dict[str, object]:
    """Two pictures of one step of each of two prompts, and a network that measures them."""
    (tmp_path / "prompts.txt").write_text("a photo of S*\nS* in the snow\n")
    return {
        "evaluate.dinov2": None, "evaluate.clip": str(make_clip(tmp_path / "clip", base)), "evaluate.count": 2,
        "evaluate.prompts": str(tmp_path / "prompts.txt"), "evaluate.noun": "dog", "generate.steps": 1,
    }  # fmt: skip


def state(workspace) -> dict[str, tuple[int, bytes]]:
    found = sorted(workspace.root.rglob("*"))
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in found}


@pytest.mark.parametrize(
    "asked", [{}, {"source": "base"}, {"source": "invert", "step": 4}, {"out": True, "grid": True}, {"source": "finetune"}]
)
def test_pictures_are_foreseen_as_they_then_are_and_nothing_is_written(copy_of_trained, tmp_path, asked):
    asked = {**asked, "out": tmp_path / "out"} if "out" in asked else asked
    prompts = ["a dog", "a cat", "a dog"] if asked.get("source") == "base" else ["S*", "a red S*", "S*"]
    overrides = {"generate.steps": 1, "generate.height": 128, "generate.strength": 0.5}
    before = state(copy_of_trained)
    would = foresee_pictures(copy_of_trained, prompts, silent, overrides=overrides, **asked)
    assert state(copy_of_trained) == before and not (tmp_path / "out").exists()
    assert (would.count, would.kept, would.size) == (4, 0, (64, 128)) and would.estimate.seconds > 0
    done = generate.run(copy_of_trained, prompts, silent, overrides=overrides, **asked)
    assert would.pictures == [{**one, "kept": False} for one in done.pictures] and would.grid == done.grid
    with Image.open(done.pictures[0]["path"]) as image:
        facts = json.loads(image.info["cictl"])
        assert image.size == would.size
    assert would.sampling == {name: facts.get(name, plain) for name, plain in (
        ("steps", None), ("sampler", None), ("guidance", None), ("strength", 1.0), ("avoid", 0.0),
    )}  # fmt: skip
    Path(done.pictures[2]["path"]).unlink()
    again = foresee_pictures(copy_of_trained, prompts, silent, overrides=overrides, **asked)
    assert again.kept == 3 and [one["kept"] for one in again.pictures] == [True, True, False, True]
    generate.run(copy_of_trained, prompts, silent, overrides=overrides, **asked)
    assert foresee_pictures(copy_of_trained, prompts, silent, overrides=overrides, **asked).estimate is None


@pytest.mark.parametrize("asked", [{}, {"source": "base"}, {"source": "invert", "step": 4}, {"out": True}])
def test_an_evaluation_is_foreseen_as_it_then_is_and_nothing_is_written(copy_of_trained, quick, tmp_path, asked):
    asked = {**asked, "out": tmp_path / "out"} if "out" in asked else asked
    before = state(copy_of_trained)
    would = foresee_evaluation(copy_of_trained, silent, overrides=quick, **asked)
    assert state(copy_of_trained) == before and not (tmp_path / "out").exists()
    assert (would.pictures, would.kept, would.replaced) == (4, 0, False)
    recorder = Recorder()
    done = evaluate.run(copy_of_trained, recorder, overrides=quick, **asked)
    assert [event.total for event in recorder.events if isinstance(event, PicturesPlanned)] == [would.pictures]
    assert (would.results, would.sheet) == (done.results, done.sheet)
    for name in ("stage", "steps", "base", "dinov2", "clip", "prompt_set", "noun", "seed", "count", "known_as"):
        assert getattr(would, name) == getattr(done.measured, name), name
    assert would.figures == list(done.measured.overall) and would.prompts == [one.prompt for one in done.measured.prompts]
    again = foresee_evaluation(copy_of_trained, silent, overrides=quick, **asked)
    assert (again.kept, again.replaced) == (4, True)


def test_a_picture_that_is_damaged_is_not_there_and_one_that_says_something_else_is_not_mended(copy_of_trained, quick):
    evaluate.run(copy_of_trained, silent, overrides=quick)
    first, second, *_ = sorted((copy_of_trained.outputs / "evaluation" / "pictures").iterdir())
    first.write_bytes(first.read_bytes()[:-40])
    with Image.open(second) as image:
        image.save(second)  # without what it said
    before = state(copy_of_trained)
    assert foresee_evaluation(copy_of_trained, silent, overrides=quick).kept == 3
    assert state(copy_of_trained) == before
    assert evaluate.run(copy_of_trained, silent, overrides=quick).kept == 3
    assert second.read_bytes() != before[str(second)][1]  # now it is


@pytest.mark.parametrize("source", ["invert", "finetune"])
def test_a_sheet_is_foreseen_where_it_then_is_and_nothing_is_written(copy_of_trained, source):
    asked = {"source": source, "count": 2, "overrides": {"generate.steps": 1}}
    before = state(copy_of_trained)
    would = foresee_attention(copy_of_trained, None, silent, **asked)
    assert state(copy_of_trained) == before
    assert (would.photographs, would.pictures, would.kept) == (3, 2, False)
    assert attention.run(copy_of_trained, None, silent, **asked).sheet == would.sheet
    assert foresee_attention(copy_of_trained, None, silent, **asked).kept


def test_a_preview_of_the_tokens_is_foreseen_as_it_then_is_and_nothing_is_written(copy_of_trained):
    asked = {"overrides": {"generate.steps": 1, "generate.count": 1}}
    before = state(copy_of_trained)
    would = foresee_preview(copy_of_trained, silent, **asked)
    assert state(copy_of_trained) == before
    assert (would.pictures, would.kept) == (4, 0)
    outcome = preview_aux.run(copy_of_trained, silent, **asked)
    assert (outcome.sheet, len(outcome.pictures)) == (would.sheet, would.pictures)
    assert foresee_preview(copy_of_trained, silent, **asked).kept == 4
    (copy_of_trained.images / "photo-1.png").unlink()
    refused = [refusal(run, copy_of_trained, silent, **asked) for run in (foresee_preview, preview_aux.run)]
    assert refused[0] == refused[1] and refused[0][0] == "photographs-gone"


def refusal(run, *arguments, **named) -> tuple[object, ...]:
    with pytest.raises(CictlError) as caught:
        run(*arguments, **named)
    return caught.value.slug, caught.value.message, caught.value.hint, caught.value.exit_code


@pytest.mark.parametrize(
    ("changes", "asked", "slug"),
    [
        ({"evaluate.dinov2": "./nowhere"}, {}, "model-not-found"), ({"evaluate.clip": "owner/clip"}, {}, "hub-switched-off"),
        ({"evaluate.clip": None}, {}, "nothing-to-measure-with"), ({"evaluate.prompts": "nowhere"}, {}, "prompt-set-unknown"),
        ({"evaluate.noun": None}, {"source": "base"}, "base-without-noun"), ({}, {"step": 5}, "step-not-kept"),
        ({}, {"source": "dreambooth"}, "method-not-trained"), ({"model.id": "toybox"}, {}, "base-changed"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused_as_it_will_be(copy_of_trained, quick, changes, asked, slug):
    runs, overrides = (foresee_evaluation, evaluate.run), {**quick, **changes}
    refused = [refusal(run, copy_of_trained, silent, overrides=overrides, **asked) for run in runs]
    assert refused[0] == refused[1] and refused[0][0] == slug


def test_whatever_is_written_is_not_written_among_the_photographs(copy_of_trained, quick):
    before, out = state(copy_of_trained), copy_of_trained.images / ".." / "images"
    for run in (evaluate.run, foresee_evaluation):
        assert refusal(run, copy_of_trained, silent, overrides=quick, out=out)[0] == "out-is-images"
    assert refusal(export.run, copy_of_trained, silent, out=out)[0] == "out-is-images"
    assert refusal(generate.run, copy_of_trained, ["S*"], silent, overrides=quick, out=out)[0] == "out-is-images"
    assert state(copy_of_trained) == before


@pytest.mark.parametrize(("prompt", "slug"), [("a dog", "prompt-without-concept"), ("S* A*", "prompt-with-auxiliary")])
def test_what_cannot_be_looked_at_is_refused_as_it_will_be(trained, prompt, slug):
    refused = [refusal(run, trained, prompt, silent) for run in (foresee_attention, attention.run)]
    assert refused[0] == refused[1] and refused[0][0] == slug


@pytest.mark.parametrize(
    ("prompt", "changes", "asked", "slug"),
    [
        ("a dog", {}, {}, "prompt-without-concept"), ("S*", {}, {"source": "base"}, "prompt-with-concept"),
        ("S*", {"model.id": "toybox"}, {}, "base-changed"), ("S*", {}, {"step": 5}, "step-not-kept"),
        ("S*", {"model.id": "owner/absent"}, {}, "hub-switched-off"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_as_it_will_be(copy_of_trained, prompt, changes, asked, slug):
    runs = (foresee_pictures, generate.run)
    refused = [refusal(run, copy_of_trained, [prompt], silent, overrides=changes, **asked) for run in runs]
    assert refused[0] == refused[1] and refused[0][0] == slug


def test_of_models_that_are_not_here_yet_the_hub_is_asked_and_what_depends_on_them_is_not_known(
    copy_of_trained, quick, monkeypatch
):
    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("cictl.models.hub.to_download", lambda request, observe: asked.append(request.key))
    absent = {"model.id": "owner/absent", "evaluate.clip": "owner/clip"}
    would = foresee_evaluation(copy_of_trained, silent, overrides={**quick, **absent})
    assert would.base == {"id": "owner/absent", "identity": None} and would.clip == {"id": "owner/clip", "identity": None}
    assert (would.pictures, would.kept) == (4, None)
    sheet = foresee_attention(copy_of_trained, None, silent, overrides=absent)
    assert (sheet.sheet, sheet.kept) == (None, None)
    preview = foresee_preview(copy_of_trained, silent, overrides=absent)
    assert (preview.pictures, preview.kept, preview.sheet) == (8, None, None)
    pictures = foresee_pictures(copy_of_trained, ["S*"], silent, overrides=absent, grid=True)
    assert pictures.base == {"id": "owner/absent", "identity": None} and pictures.count == 2
    assert (pictures.kept, pictures.pictures, pictures.grid) == (None, None, None)
    assert "Stable Diffusion 1.5's UNet" in pictures.estimate.method
    assert asked == ["evaluate.clip", *["model.id"] * 4]
    arguments = [f"--set={key}={'null' if value is None else value}" for key, value in {**quick, **absent}.items()]
    shown = CliRunner().invoke(app, ["evaluate", "--dry-run", "-C", str(copy_of_trained.root), *arguments]).stdout
    assert "4 pictures would be drawn and measured, of which those that are there are kept" in shown
    assert "CLIP:     owner/clip, still to be downloaded" in shown


def test_what_would_be_done_is_said_in_words(copy_of_trained, quick):
    def said(command: str, *arguments: str) -> str:
        result = CliRunner().invoke(app, [command, "-C", str(copy_of_trained.root), "--set=generate.steps=1", *arguments])
        assert result.exit_code == 0, result.stderr
        return result.stdout

    settings = [f"--set={key}={'null' if value is None else value}" for key, value in quick.items()]
    assert said("evaluate", "--dry-run", *settings).startswith(
        "4 pictures would be drawn and measured\nstage:    finetune after 6"
    )
    said("evaluate", "-n", "1", *settings)
    partly = said("evaluate", "--dry-run", *settings)
    assert partly.startswith("2 of 4 pictures would be drawn, the rest is there already; all would be measured\n")
    assert "figures:  CLIP-I, CLIP-T\n" in partly and partly.endswith("which are there already and would be replaced\n")
    assert said("evaluate", "--dry-run", "-n", "1", *settings).startswith("2 pictures would be measured; all are there already\n")
    drawn = ["generate", "S*", "--avoid", "0.5", "-n"]
    assert said(*drawn, "2", "--dry-run").startswith("2 pictures would be drawn\nstage:    finetune after 6 steps, on ")
    said(*drawn, "1")
    partly = said(*drawn, "2", "--dry-run")
    assert partly.startswith("1 of 2 pictures would be drawn, the rest is there already\n")
    assert "64 x 64 pixels, 1 step of ddim, guidance 5, avoid 0.5, at most 4 at a time\ntakes:    about " in partly
    assert partly.count("  (there already)\n") == 1
    whole = said(*drawn, "1", "--dry-run")
    assert whole.startswith("already done: the picture is there\n") and "takes:" not in whole
    assert said("attention", "--dry-run").startswith("would look at 3 photographs and draw 1 picture\nthe sheet: ")
    sheet = said("attention")
    assert said("attention", "--dry-run") == "already done: the sheet is there; nothing would be drawn\n" + sheet
    assert said("preview-aux", "-n", "1", "--dry-run").startswith("4 pictures would be drawn\nthe sheet: ")
    sheet = said("preview-aux", "-n", "1")
    assert said("preview-aux", "-n", "1", "--dry-run") == "all 4 pictures are there; the sheet would be made of them\n" + sheet

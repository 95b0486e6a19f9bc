"""The safety checker that a base model ships: what it flags is black and named; without one nothing is different."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cictl.cli.app import main
from cictl.errors import ModelAccessError
from cictl.events import PreviewSaved, SamplingStep, Warned
from cictl.models.locate import locate_base
from cictl.models.safety import SafetyChecker
from cictl.workflow import generate, init, invert
from tests.support import Recorder, quick, silent, write_settings

PROMPT = "a photo of a cat"
CPU = torch.device("cpu")
EVERYTHING, NOTHING = -2.0, 2.0  # a threshold of cosines that all, or none, are above


def add_checker(folder: Path, threshold: float) -> Path:
    """Give the base in ``folder`` a random safety checker, with the names of the published ones."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig

    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    vision = {**tower, "image_size": 32, "patch_size": 16, "projection_dim": 32}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=32))
    checker.concept_embeds.data.normal_()
    checker.special_care_embeds_weights.data.fill_(NOTHING)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.save_pretrained(folder / "safety_checker")
    path = folder / "safety_checker" / "model.safetensors"
    tensors = {name.replace("vision_model.", "vision_model.vision_model.", 1): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    shutil.copytree(folder / "clip", folder / "feature_extractor", ignore=shutil.ignore_patterns("model*", "config.json"))
    return folder


@pytest.fixture(scope="module")
def strict(base, tmp_path_factory) -> Path:
    """The tiny base with a checker that flags everything."""
    return add_checker(shutil.copytree(base, tmp_path_factory.mktemp("strict") / "base"), EVERYTHING)


@pytest.fixture(scope="module")
def lenient(base, tmp_path_factory) -> Path:
    """The tiny base with a checker that flags nothing."""
    return add_checker(shutil.copytree(base, tmp_path_factory.mktemp("lenient") / "base"), NOTHING)


def workspace_on(folder: Path, root: Path, **changes):
    workspace = init.run(root / "my-teapot", model=str(folder), name="my-teapot")
    write_settings(workspace, {**quick(folder), "generate.steps": 1, **changes})
    return workspace


def draw(folder: Path, root: Path, observe=silent, **arguments):
    workspace = workspace_on(folder, root, **arguments.pop("changes", {}))
    outcome = generate.run(workspace, [PROMPT], observe, source="base", out=root / "out", **arguments)
    return outcome, [root / "out" / Path(picture["path"]).name for picture in outcome.pictures]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def said(path: Path) -> tuple[str, dict]:
    with Image.open(path) as image:
        return image.text["parameters"], json.loads(image.text["cictl"])


# -- the checker itself -------------------------------------------------------------------------------


def test_the_checker_blanks_what_it_flags_and_leaves_the_rest_as_it_is(lenient):
    checker = SafetyChecker.load(locate_base(str(lenient)), CPU)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    pictures[1] //= 4
    images = [Image.fromarray(picture) for picture in pictures]
    inputs = checker.processor(images=images, return_tensors="pt").pixel_values
    model = checker.model
    with torch.no_grad():
        embeddings = model.visual_projection(model.vision_model(inputs)[1])
    cosines = torch.nn.functional.cosine_similarity(embeddings, model.concept_embeds[:1])
    highest, second = cosines.sort(descending=True).values[:2]
    assert highest - second > 0.002  # the checker rounds to three digits
    model.concept_embeds_weights[0] = (highest + second) / 2
    flagged = int(cosines.argmax())
    blanked = checker.blank(pictures)
    assert blanked.dtype == np.uint8 and not blanked[flagged].any()
    for other in {0, 1, 2} - {flagged}:
        assert (blanked[other] == pictures[other]).all()


def test_a_checker_that_lacks_a_weight_is_refused_with_the_way_to_do_without(strict, tmp_path):
    folder = shutil.copytree(strict, tmp_path / "damaged")
    path = folder / "safety_checker" / "model.safetensors"
    save_file({name: t for name, t in load_file(path).items() if name != "concept_embeds_weights"}, path, {"format": "pt"})
    with pytest.raises(ModelAccessError, match="safety checker lacks 1 weight, such as concept_embeds_weights") as caught:
        draw(folder, tmp_path)
    assert "generate.safety_checker=off" in caught.value.hint


# -- generate -----------------------------------------------------------------------------------------


def test_flagged_pictures_are_black_and_named_now_and_when_they_are_kept(strict, tmp_path):
    for round_ in range(2):
        seen = Recorder()
        outcome, paths = draw(strict, tmp_path / "a", observe=seen) if not round_ else again(tmp_path / "a", seen)
        assert outcome.kept == round_ * 2
        assert outcome.blanked == [picture["path"] for picture in outcome.pictures]
        assert not any(pixels(path).any() for path in paths)
        [warning] = [text for text in seen.texts(Warned) if "safety checker" in text]
        assert "blanked 2 of 2" in warning and all(path.name in warning for path in paths)
    assert not any(isinstance(event, SamplingStep) for event in seen.events)


def again(root: Path, observe):
    from cictl.workspace import Workspace

    outcome = generate.run(Workspace(root / "my-teapot"), [PROMPT], observe, source="base", out=root / "out")
    return outcome, [root / "out" / Path(picture["path"]).name for picture in outcome.pictures]


def test_some_blanked_pictures_are_named_and_the_others_are_not(lenient, tmp_path, monkeypatch):
    monkeypatch.setattr(SafetyChecker, "blank", lambda self, pictures: pictures * np.array([0, 1], np.uint8)[:, None, None, None])
    outcome, paths = draw(lenient, tmp_path)
    assert outcome.blanked == [outcome.pictures[0]["path"]]
    assert not pixels(paths[0]).any() and pixels(paths[1]).any()


def test_what_is_not_flagged_is_the_picture_that_there_is_without_a_checker(lenient, base, tmp_path):
    seen = Recorder()
    checked, with_checker = draw(lenient, tmp_path / "a", observe=seen)
    unchecked, without = draw(base, tmp_path / "b")
    assert checked.blanked == unchecked.blanked == []
    assert not seen.texts(Warned)
    for one, other in zip(with_checker, without, strict=True):
        assert (pixels(one) == pixels(other)).all()
    assert said(with_checker[0])[1]["safety_checker"] == "on"


def test_off_draws_without_it_and_the_files_say_so(strict, base, tmp_path):
    outcome, paths = draw(strict, tmp_path / "a", changes={"generate.safety_checker": "off"})
    _, without = draw(base, tmp_path / "b")
    assert outcome.blanked == []
    assert (pixels(paths[0]) == pixels(without[0])).all()
    parameters, facts = said(paths[0])
    assert "Safety checker: off" in parameters and facts["safety_checker"] == "off"


def test_a_blanked_picture_does_not_stand_in_for_one_that_was_drawn_with_off(strict, tmp_path):
    _, blanked = draw(strict, tmp_path / "a")
    outcome, paths = draw(strict, tmp_path / "b", changes={"generate.safety_checker": "off"})
    assert not {path.name for path in blanked} & {path.name for path in paths}
    assert outcome.kept == 0


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_a_model_without_a_checker_has_the_names_and_texts_it_had_and_loads_none(base, tmp_path, setting, monkeypatch):
    monkeypatch.setattr(SafetyChecker, "load", None)  # all that imports the checker's code
    _, paths = draw(base, tmp_path / "a", changes={"generate.safety_checker": setting, "generate.count": 1})
    parameters, facts = said(paths[0])
    assert "afety" not in parameters and "safety_checker" not in facts
    _, plain = draw(base, tmp_path / "b", changes={"generate.count": 1})
    assert [path.name for path in paths] == [path.name for path in plain]


def test_a_checker_that_is_a_pickle_is_not_read_and_that_is_said(strict, tmp_path):
    folder = shutil.copytree(strict, tmp_path / "pickled")
    (folder / "safety_checker" / "model.safetensors").rename(folder / "safety_checker" / "pytorch_model.bin")
    seen = Recorder()
    outcome, paths = draw(folder, tmp_path, observe=seen)
    assert any("not there as safetensors" in text and "not checked" in text for text in seen.texts(Warned))
    assert outcome.blanked == [] and pixels(paths[0]).any()


def test_previews_in_training_are_checked_too(strict, photographs, tmp_path):
    workspace = init.run(tmp_path / "my-teapot", model=str(strict), images=photographs, name="my-teapot")
    write_settings(workspace, {**quick(strict), "invert.steps": 1, "preview.interval": 1, "preview.steps": 1})
    seen = Recorder()
    invert.run(workspace, seen)
    [preview] = [event.path for event in seen.events if isinstance(event, PreviewSaved)]
    assert not pixels(preview).any()


# -- the command --------------------------------------------------------------------------------------


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Runs ``cictl generate`` in this process: its exit code and the lines of JSON."""

    def run(workspace, *arguments: str) -> tuple[int, list[dict]]:
        command = ["cictl", "generate", PROMPT, "--stage", "base", "--json", "-C", str(workspace.root), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_the_command_fails_if_all_pictures_are_blanked_and_its_result_names_them(strict, tmp_path, run_command):
    code, lines = run_command(workspace_on(strict, tmp_path))
    [result] = [line for line in lines if line.get("event") == "Result"]
    assert code == 1
    assert len(result["blanked"]) == 2
    assert "blanked all 2 pictures" in lines[-1]["message"] and "generate.safety_checker=off" in lines[-1]["hint"]


def test_the_command_succeeds_with_off_or_if_one_picture_is_left(strict, tmp_path, run_command, monkeypatch):
    workspace = workspace_on(strict, tmp_path)
    code, lines = run_command(workspace, "--set", "generate.safety_checker=off")
    assert (code, lines[-1]["blanked"]) == (0, [])
    monkeypatch.setattr(SafetyChecker, "blank", lambda self, pictures: pictures * np.array([0, 1], np.uint8)[:, None, None, None])
    code, lines = run_command(workspace)
    assert (code, len(lines[-1]["blanked"])) == (0, 1)

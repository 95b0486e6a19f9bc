"""Exports of other base models than a plain folder: with a safety checker, saved by somebody, or in one file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

from cictl.errors import ModelAccessError
from cictl.exporters.registry import FORMATS
from cictl.models.locate import locate_base
from cictl.workflow import export, finetune, init, invert
from cictl.workspace import Workspace
from tests.models.ldm import write_ldm
from tests.support import quick, silent, write_settings
from tests.tiny import make_base
from tests.workflow.test_safety_checker import EVERYTHING, NOTHING, add_checker


def trained_on(model: Path, parts: Path, root: Path, photographs) -> Workspace:
    workspace = init.run(root / "my-teapot", model=str(model), images=photographs, name="my-teapot")
    write_settings(workspace, {**quick(parts), "invert.steps": 2, "finetune.steps": 2})
    invert.run(workspace, silent)
    finetune.run(workspace, silent)
    return workspace


@pytest.mark.parametrize(("threshold", "black"), [(EVERYTHING, True), (NOTHING, False)])
def test_a_pipeline_keeps_the_safety_checker_of_its_base(base, photographs, tmp_path, monkeypatch, threshold, black):
    folder = add_checker(shutil.copytree(base, tmp_path / "base"), threshold)
    config = folder / "safety_checker" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": "/home/somebody/checker"}))
    workspace = trained_on(folder, folder, tmp_path, photographs)
    outcome = export.run(workspace, silent, formats=["pipeline"], out=tmp_path / "out")
    assert export.run(workspace, silent, formats=["pipeline"], out=tmp_path / "out").already_done
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(outcome.usage["pipeline"]["diffusers"].replace("num_inference_steps=50", "num_inference_steps=1"), names)
    with Image.open("my-teapot.png") as picture:
        assert (picture.getbbox() is None) == black
    assert not any(b"/home/somebody" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_where_a_base_was_once_saved_from_is_in_no_export(base, photographs, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    for part in ("unet", "vae", "text_encoder"):
        config = folder / part / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "_name_or_path": "/home/somebody/sd"}))
    workspace = trained_on(folder, folder, tmp_path, photographs)
    export.run(workspace, silent, every=True, out=tmp_path / "out")
    assert not any(b"/home/somebody" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction"])
def test_a_single_file_of_a_velocity_model_says_that_it_is_one(photographs, tmp_path, predicts):
    base = make_base(tmp_path / "base", predicts)
    workspace = trained_on(base, base, tmp_path, photographs)
    [file, *_] = export.run(workspace, silent, formats=["single-file"], out=tmp_path / "out").files
    if predicts == "epsilon":
        assert locate_base(file["path"]).file
    else:
        with pytest.raises(ModelAccessError, match="a model with v-prediction, which its weights do not say"):
            locate_base(file["path"])


def test_all_formats_of_a_base_in_one_file_are_those_of_its_folder(base, photographs, tmp_path, monkeypatch):
    file = write_ldm(base, tmp_path / "tiny.safetensors")
    monkeypatch.setattr("cictl.models.locate.SD1_CONFIGS", base)
    workspace = trained_on(file, base, tmp_path / "of-file", photographs)
    outcome = export.run(workspace, silent, every=True, out=tmp_path / "one")
    assert {entry["format"] for entry in outcome.files} == {one.name for one in FORMATS}
    assert "StableDiffusionPipeline.from_single_file(" in outcome.usage["embedding"]["diffusers"]
    export.run(trained_on(base, base, tmp_path / "of-folder", photographs), silent, every=True, out=tmp_path / "two")
    paths = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.safetensors"))
    assert len(paths) == 18
    for path in paths:
        one, two = load_file(tmp_path / "one" / path), load_file(tmp_path / "two" / path)
        assert one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one), path

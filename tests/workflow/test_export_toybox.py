"""The demo's model, whose layout is not Stable Diffusion 1.5's: every form is written of it all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cictl.engine.sampling import initial_noise
from cictl.events import ignore
from cictl.exporters.registry import FORMATS
from cictl.workflow import demo, export, finetune, generate, invert
from cictl.workspace import Workspace

LATENTS = (8, 16, 16)


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory) -> Workspace:
    """The demo's workspace after a few steps that go far."""
    workspace = demo.prepare(tmp_path_factory.mktemp("toybox") / "demo")
    invert.run(workspace, ignore, overrides={"invert.steps": 2})
    finetune.run(workspace, ignore, overrides={"finetune.steps": 3, "finetune.learning_rate": 0.01})
    return workspace


@pytest.fixture(scope="module")
def exported(short_demo, tmp_path_factory) -> export.ExportOutcome:
    return export.run(short_demo, ignore, every=True, out=tmp_path_factory.mktemp("exported"), rank=1000)


def test_nothing_is_left_out(exported):
    assert not exported.left_out
    assert {file["format"] for file in exported.files} == {one.name for one in FORMATS}


@pytest.mark.parametrize("name", ["lora", "diffusers-lora", "custom-diffusion", "pipeline", "single-file"])
def test_diffusers_draws_cictls_picture(exported, short_demo, tmp_path, monkeypatch, name):
    settings = {"generate.count": 1, "generate.steps": 4, "generate.guidance": 5.0, "seed": 1}
    made = generate.run(short_demo, ["a photo of S* in the snow"], ignore, out=tmp_path, overrides=settings)
    ours = np.asarray(Image.open(made.pictures[0]["path"])).astype(int)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(exported.usage[name]["diffusers"].replace("num_inference_steps=50", "num_inference_steps=1"), names)
    assert Path("my-teapot.png").is_file()
    noise = initial_noise(1, LATENTS).unsqueeze(0)
    prompt = "a photo of <my-teapot> in the snow"
    theirs = names["pipe"](prompt, latents=noise, num_inference_steps=4, guidance_scale=5.0).images[0]
    assert np.abs(np.asarray(theirs).astype(int) - ours).max() <= 1

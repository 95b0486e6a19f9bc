"""Stage 2 other than the paper has it: some layers alone, and S* along with K, V."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from cictl.engine.checkpoint import parse_tensors
from cictl.errors import Interrupted, StateError
from cictl.events import PreviewSaved, Warned
from cictl.workflow import export, finetune, generate, invert
from cictl.workflow.concept import find_concept
from cictl.workspace import Workspace
from tests.support import Recorder, assert_left_the_same, left_by, silent

WITH_TOKEN = {"finetune.concept_learning_rate": 0.01, "finetune.layers": ["mid_block"], "finetune.steps": 6}


@pytest.fixture
def inverted(make_workspace) -> Workspace:
    workspace = make_workspace()
    invert.run(workspace, silent)
    return workspace


def test_a_token_and_some_layers_go_on_to_the_same_bits_after_a_stop(inverted, tmp_path):
    whole = Workspace(shutil.copytree(inverted.root, tmp_path / "whole"))
    finetune.run(whole, silent, overrides=WITH_TOKEN)
    with pytest.raises(Interrupted):
        finetune.run(inverted, Recorder(stop_after=4), overrides={**WITH_TOKEN, "tracking.interval": 1})
    finetune.run(inverted, silent)
    assert_left_the_same(left_by(inverted, "finetune"), left_by(whole, "finetune"))
    with pytest.raises(StateError, match=r"finetune\.concept_learning_rate: 0\.01 -> 0\.0"):
        finetune.run(inverted, silent, overrides={"finetune.concept_learning_rate": 0})


def test_pictures_previews_and_exports_are_of_the_token_that_stage_2_ended_with(inverted, tmp_path):
    recorder = Recorder()
    finetune.run(inverted, recorder, overrides={**WITH_TOKEN, "preview.interval": 3, "preview.steps": 2})
    first, last = find_concept(inverted, "invert", silent).tokens(), find_concept(inverted, "finetune", silent).tokens()
    assert first.keys == last.keys
    assert torch.equal(first.auxiliary, last.auxiliary)
    moved = (last.concept - first.concept).abs().max()
    assert 0.01 < moved < 0.2  # six steps of AdamW at 0.01 each, and no more
    drawn = {
        source: Path(generate.run(inverted, ["a photo of S*"], silent, source=source, out=tmp_path / source).pictures[0]["path"])
        for source in ("invert", "finetune")
    }
    assert drawn["invert"].read_bytes() != drawn["finetune"].read_bytes()
    previews = [event.path.read_bytes() for event in recorder.events if isinstance(event, PreviewSaved)]
    assert len(set(previews)) == len(previews) == 2
    export.run(inverted, silent, formats=["safetensors"], out=tmp_path / "exported")
    files = (tmp_path / "exported").rglob("*.safetensors")
    tensors = [tensor for file in files for tensor in parse_tensors(file.read_bytes()).values()]
    assert any(tensor.shape == last.concept.shape and torch.equal(tensor, last.concept) for tensor in tensors)


def test_a_stage_1_is_proposed_as_it_is_only_with_steps_done(make_workspace):
    workspace = make_workspace()
    with pytest.raises(Interrupted):
        invert.run(workspace, Recorder(stop_after=2), overrides={"tracking.interval": 1})
    with pytest.raises(StateError, match="stage 1 is not done: 2 of") as caught:
        finetune.run(workspace, silent)
    assert "cictl finetune --set invert.steps=2" in caught.value.hint
    finetune.run(workspace, silent, overrides={"invert.steps": 2})
    told = Recorder()
    find_concept(workspace, None, told)
    assert told.texts(Warned) == ["cictl invert is at 2 of 8 steps"]  # also where stage 2 is done
    shutil.rmtree(workspace.stage_folder("finetune"))
    shutil.rmtree(workspace.stage_folder("invert") / "step-0000002")
    with pytest.raises(StateError, match="stage 1 is not done: 0 of") as caught:
        finetune.run(workspace, silent)
    assert caught.value.hint == "cictl invert goes on with it"

"""The toybox's own concepts: recognised by their pixels, and read by the judge as the suite reads them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.data.png import write_png
from cictl.evaluation.ground_truth import judge_pictures, judgement, recognise, tasks_by_prompt
from cictl.models.locate import locate_base
from cictl.toybox.concepts import demo_concept, development_concepts, failure_concepts, suite_concepts
from cictl.toybox.scoring import alignment, fidelity, leakage
from cictl.workflow import init, invert
from cictl.workspace import Workspace
from tests.support import silent, write_settings


@pytest.mark.parametrize("concept", [demo_concept(), suite_concepts()[-1]])
def test_a_concept_is_recognised_by_all_its_photographs_in_any_order(concept):
    photographs = concept.photographs()
    assert recognise(reversed(photographs)) == concept
    assert recognise(photographs[:-1]) is None
    changed = [pixels.copy() for pixels in photographs]
    changed[2][10, 10] ^= 1
    assert recognise(changed) is None
    assert recognise([*photographs, suite_concepts()[0].photographs()[0]]) is None
    assert recognise([*photographs, np.zeros((80, 64, 3), np.uint8)]) is None


@pytest.mark.parametrize("concept", [development_concepts()[-1], failure_concepts()[-1]])
def test_concepts_that_no_figure_is_reported_of_are_recognised_too(concept):
    assert recognise(concept.photographs()) == concept


def test_photographs_of_nothing_known_are_of_nothing():
    assert recognise([]) is None
    assert recognise([np.zeros((64, 64, 3), np.uint8)]) is None
    assert recognise([np.zeros((80, 80, 3), np.uint8)]) is None


@pytest.fixture
def toybox_workspace(tmp_path) -> Workspace:
    workspace = init.run(tmp_path / "my-teapot", model="toybox", name="my-teapot")
    for number, pixels in enumerate(demo_concept().photographs(), 1):
        write_png(workspace.images / f"teapot-{number}.png", pixels)
    write_settings(workspace, {"invert.steps": 2, "generate.steps": 4})
    invert.run(workspace, silent)
    return workspace


def test_on_the_toybox_the_judge_reads_what_the_suite_would_read(toybox_workspace):
    result = CliRunner().invoke(app, ["evaluate", "-C", str(toybox_workspace.root), "-n", "2"])
    assert result.exit_code == 0, result.stderr
    assert "fidelity" in result.stdout and "the ground truth of my-teapot" in result.stdout
    folder = toybox_workspace.outputs / "evaluation"
    found = json.loads((folder / "results.json").read_text())
    assert found["prompt_set"] == "toybox" and found["known_as"] == "my-teapot" and found["dinov2"] is None
    assert list(found["overall"]) == ["clip_i", "clip_t", "fidelity", "alignment", "leakage"]
    concept, tasks = demo_concept(), tasks_by_prompt(demo_concept())
    from PIL import Image

    for one in found["prompts"]:
        task = tasks[one["prompt"]]
        pictures = [np.asarray(Image.open(folder / picture["path"])) for picture in one["pictures"]]
        [readings] = judge_pictures(locate_base("toybox").folder, [pictures])
        assert readings == [picture["reading"] for picture in one["pictures"]]
        for name, score in (("fidelity", fidelity), ("alignment", alignment)):
            values = [score(task, reading) for reading in readings]
            assert one["figures"][name]["mean"] == pytest.approx(sum(values) / 2)
        assert one["figures"]["leakage"]["mean"] == pytest.approx(sum(leakage(concept, task, r) for r in readings) / 2)
        assert judgement(concept, task, readings[0]).fidelity == one["pictures"][0]["figures"]["fidelity"]


def test_prompts_of_ones_own_are_read_without_marks_since_nothing_is_known_of_them(toybox_workspace, tmp_path):
    (tmp_path / "mine.txt").write_text("a photo of S* in a studio\n")
    arguments = ["evaluate", "-C", str(toybox_workspace.root), "-n", "1", "--prompts", str(tmp_path / "mine.txt")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    found = json.loads((toybox_workspace.outputs / "evaluation" / "results.json").read_text())
    assert list(found["overall"]) == ["clip_i", "clip_t"]
    assert found["prompts"][0]["pictures"][0]["reading"].keys() >= {"form", "colour", "background"}

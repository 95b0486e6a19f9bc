"""`cictl compare --dry-run` counts what `cictl compare` draws, and refuses what that refuses."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from cictl.errors import CictlError, Interrupted
from cictl.events import Note, PicturesPlanned
from cictl.records import snapshots
from cictl.workflow import baseline, compare, foreseen, invert
from tests.evaluation_models import make_clip, make_dinov2
from tests.support import Recorder, silent


@pytest.fixture
def quick(tmp_path, base) -> dict[str, object]:
    """One picture of one step, and networks that measure it."""
    (tmp_path / "prompts.txt").write_text("a photo of S*\n")
    return {
        "evaluate.dinov2": str(make_dinov2(tmp_path / "dinov2")), "evaluate.clip": str(make_clip(tmp_path / "clip", base)),
        "evaluate.count": 1, "evaluate.prompts": str(tmp_path / "prompts.txt"), "generate.steps": 1,
    }  # fmt: skip


def drawn(workspace, overrides, *methods: str) -> tuple[int, list[int], list[str]]:
    """How many pictures are foreseen, the steps of what is then drawn, and what was said in both."""
    said, told = Recorder(), Recorder()
    count = foreseen.run(workspace, told, methods=methods, overrides=overrides).pictures
    outcome = compare.run(workspace, said, methods=methods, overrides=overrides)
    assert count == sum(event.total for event in said.events if isinstance(event, PicturesPlanned))
    notes = [text for text in told.texts(Note) if "clip" in text]
    assert notes == [text for text in said.texts(Note) if "clip" in text]
    return count, [row.steps for row in outcome.rows], notes


def test_a_training_that_goes_on_is_counted_by_its_own_settings_and_by_what_it_has_kept(make_workspace, quick):
    workspace = make_workspace()
    own = {"textual_inversion.steps": 20, "checkpoint.snapshots": 9, "tracking.interval": 1}
    with pytest.raises(Interrupted):
        baseline.run(workspace, "textual-inversion", Recorder(stop_after=5), overrides=own)
    assert drawn(workspace, quick, "textual-inversion")[0] == 10
    other = {"textual_inversion.steps": 40, "checkpoint.snapshots": 3}  # 10, which is there, 20, which is the last, and 30
    assert drawn(workspace, {**quick, **other}, "textual-inversion")[0] == 9 + 2 + 1


def test_an_early_end_at_a_snapshots_step_is_counted_once(make_workspace, quick):
    workspace = make_workspace(invert__auxiliary_vectors=0)
    rule = {"invert.stop_every": 2, "invert.stop_window": 4, "invert.stop_ratio": 0.999}
    ended = invert.run(workspace, silent, overrides={**rule, "invert.steps": 16, "checkpoint.snapshots": 7})
    there = len(snapshots(workspace.stage_folder("invert")))
    assert ended.ended_early and drawn(workspace, quick, "invert")[0] == there


def test_without_a_figure_of_obeyed_prompts_only_the_last_is_drawn_and_a_note_says_why(copy_of_trained, quick):
    count, steps, [note] = drawn(copy_of_trained, {**quick, "evaluate.clip": None}, "finetune")
    assert (count, steps) == (1 + 4, [6])  # with what each photograph has of its own, and S*
    assert "evaluate.clip is null" in note and "along the way is not drawn" in note
    assert drawn(copy_of_trained, quick, "finetune")[2] == []


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"evaluate.dinov2": "./nowhere"}, "model-not-found"), ({"evaluate.clip": "owner/clip"}, "hub-switched-off"),
        ({"evaluate.dinov2": None, "evaluate.clip": None}, "nothing-to-measure-with"),
        ({"evaluate.prompts": "nowhere"}, "prompt-set-unknown"), ({"evaluate.dinov2": "toybox"}, "toybox-without-dinov2"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_as_it_will_be(copy_of_trained, quick, changes, slug):
    refused = []
    for run in (foreseen.run, compare.run):
        with pytest.raises(CictlError) as caught:
            run(copy_of_trained, silent, methods=["finetune"], overrides={**quick, **changes})
        refused.append((caught.value.slug, caught.value.message, caught.value.hint, caught.value.exit_code))
    assert refused[0] == refused[1] and refused[0][0] == slug


def test_of_a_network_that_is_not_here_yet_the_hub_is_asked_and_nothing_is_downloaded(copy_of_trained, quick, monkeypatch):
    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("cictl.models.hub.to_download", lambda request, observe: asked.append((request.key, request.id)))
    foreseen.run(copy_of_trained, silent, methods=["finetune"], overrides={**quick, "evaluate.clip": "owner/clip"})
    assert asked == [("evaluate.clip", "owner/clip")]


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"model__id": "owner/absent"}, "hub-switched-off"), ({"model__id": "./nowhere"}, "model-not-found"),
        ({"model__clip": "owner/absent"}, "hub-switched-off"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["base", "textual-inversion", "invert"])
def test_a_model_that_cannot_be_had_is_refused_as_it_will_be(make_workspace, quick, method, changes, slug):
    workspace, refused, given = make_workspace(**changes), [], {**quick, "evaluate.noun": "dog", "textual_inversion.steps": 1}
    if "model__clip" in changes and method != "invert":  # which no other of these reads
        foreseen.run(workspace, silent, methods=[method], overrides=given)
        return
    for run in (foreseen.run, compare.run):
        with pytest.raises(CictlError) as caught:
            run(workspace, silent, methods=[method], overrides=given)
        refused.append((caught.value.slug, caught.value.message, caught.value.hint, caught.value.exit_code))
    assert refused[0] == refused[1] and refused[0][0] == slug


def test_a_model_that_the_hub_has_is_foreseen_without_it(make_workspace, quick, monkeypatch):
    asked = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("cictl.models.hub.to_download", lambda request, observe: asked.append((request.key, request.id)))
    absent = {"model.id": "owner/absent", "model.clip": "owner/clip"}
    would = foreseen.run(make_workspace(), silent, methods=["invert"], overrides={**quick, **absent})
    assert list(would.estimates) == ["invert"]
    assert asked == [("model.id", "owner/absent"), ("model.clip", "owner/clip")]

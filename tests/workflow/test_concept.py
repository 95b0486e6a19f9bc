"""Which checkpoints a concept comes from: what is drawn is whole, and what is not read is not looked at."""

from __future__ import annotations

import shutil

import pytest

from cictl import records
from cictl.errors import StateError
from cictl.events import Warned
from cictl.records import RESULT, SNAPSHOTS, STATE, latest_checkpoint, step_folder
from cictl.workflow import concept, finetune, invert
from cictl.workflow.concept import find_concept
from tests.support import Recorder, silent


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("source", ["invert", "finetune", None])
def test_a_result_that_is_damaged_is_passed_over_and_a_state_that_is_does_not_matter(copy_of_trained, source):
    folder = copy_of_trained.stage_folder("finetune" if source is None else source)
    whole = find_concept(copy_of_trained, source, silent)
    flip(whole.checkpoints[-1].folder / STATE)
    recorder = Recorder()
    assert find_concept(copy_of_trained, source, recorder) == whole and not recorder.texts(Warned)
    flip(whole.checkpoints[-1].folder / RESULT)
    assert find_concept(copy_of_trained, source, recorder).checkpoints[-1].folder == folder / step_folder(4)
    last = step_folder(whole.steps)
    assert [text for text in recorder.texts(Warned) if f"{folder.name}/{last} is passed over: {RESULT} is damaged" in text]


def test_a_damaged_stage_1_is_told_of_where_stage_2_refuses_the_one_before(copy_of_trained):
    flip(copy_of_trained.stage_folder("invert") / step_folder(8) / RESULT)
    recorder = Recorder()
    with pytest.raises(StateError, match="4 of 8 steps"):
        finetune.run(copy_of_trained, recorder)
    assert [text for text in recorder.texts(Warned) if f"invert/{step_folder(8)} is passed over" in text]


def test_a_training_that_has_not_done_a_step_is_none_that_one_means_or_can_draw_with(copy_of_trained):
    for stage in ("invert", "finetune"):
        shutil.rmtree(copy_of_trained.stage_folder(stage))
    invert.run(copy_of_trained, silent)
    finetune.run(copy_of_trained, silent, overrides={"finetune.steps": 1})
    shutil.rmtree(copy_of_trained.stage_folder("finetune") / step_folder(1))
    assert latest_checkpoint(copy_of_trained.stage_folder("finetune"))[0].step == 0
    assert concept.furthest_stage(copy_of_trained) == find_concept(copy_of_trained, None, silent).source == "invert"
    with pytest.raises(StateError) as error:
        find_concept(copy_of_trained, "finetune", silent)
    assert error.value.slug == "stage-2-not-run"
    invert.run(copy_of_trained, silent, overrides={"invert.steps": 1}, restart=True)
    with pytest.raises(StateError, match=r"has kept nothing of step 0, but of: 1$"):
        find_concept(copy_of_trained, "invert", silent, 0)


@pytest.mark.parametrize(("source", "kept"), [("invert", [2, 4, 6, 8]), ("finetune", [2, 3, 4, 6])])
def test_what_is_kept_of_a_step_is_found_as_long_as_it_is_whole(copy_of_trained, source, kept):
    folder = copy_of_trained.stage_folder(source)
    assert [find_concept(copy_of_trained, source, silent, step).steps for step in kept] == kept
    flip(folder / SNAPSHOTS / step_folder(2) / RESULT)
    others = ", ".join(map(str, kept[1:]))
    with pytest.raises(StateError, match=f"cictl {source} has kept nothing of step 2, but of: {others}$"):
        find_concept(copy_of_trained, source, silent, 2)
    flip(folder / step_folder(4) / RESULT)
    assert find_concept(copy_of_trained, source, silent, 4).checkpoints[-1].folder.parent.name == SNAPSHOTS
    flip(folder / step_folder(kept[-1]) / RESULT)
    with pytest.raises(StateError, match=f"no checkpoint of cictl {source} is whole"):
        find_concept(copy_of_trained, source, silent, kept[-1])


@pytest.mark.parametrize(
    ("stage", "source", "slug"),
    [("finetune", "finetune", "stage-2-not-run"), ("finetune", None, "step-not-kept"), ("invert", "invert", "stage-1-not-run")],
)
def test_where_all_is_put_aside_while_a_step_is_looked_for_it_is_looked_for_again(
    copy_of_trained, monkeypatch, stage, source, slug
):
    def put_aside(folder):
        if folder.name == stage and folder.exists():
            folder.rename(folder.with_name("aside"))
        return records.snapshots(folder)

    with monkeypatch.context() as patch:
        patch.setattr(concept, "snapshots", put_aside)
        with pytest.raises(StateError) as error:
            find_concept(copy_of_trained, source, silent, 5)
    assert error.value.slug == slug


def test_a_snapshot_that_is_put_aside_while_it_is_read_is_looked_for_again(copy_of_trained, monkeypatch):
    folder = copy_of_trained.stage_folder("invert")
    real = concept._kept_of

    def put_aside(workspace, stage, step):
        found = real(workspace, stage, step)
        if found:
            folder.rename(folder.with_name("aside"))
        return found

    monkeypatch.setattr(concept, "_kept_of", put_aside)
    with pytest.raises(StateError) as error:
        find_concept(copy_of_trained, "invert", silent, 2)
    assert error.value.slug == "stage-1-not-run"

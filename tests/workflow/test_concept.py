"""Which checkpoints a concept comes from: what is drawn is whole, and what is not read is not looked at."""

from __future__ import annotations

import pytest

from cictl import records
from cictl.errors import StateError
from cictl.events import Warned
from cictl.records import RESULT, SNAPSHOTS, STATE, step_folder
from cictl.workflow import concept
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
    if source == "invert":
        assert find_concept(copy_of_trained, source, silent).steps == 4
        return
    assert find_concept(copy_of_trained, source, recorder).checkpoints[-1].folder == folder / step_folder(4)
    assert [text for text in recorder.texts(Warned) if f"{step_folder(6)} is passed over: {RESULT} is damaged" in text]


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

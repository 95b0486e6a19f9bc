"""--restart: the old training stays until the new one has begun, is kept whole, and comes back as the note says."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from cictl.errors import CictlError, Interrupted, ProcessLost, ResourceError
from cictl.events import CheckpointSaved, Note, PhaseStarted, PutAside, StageStarted
from cictl.files import sha256_file
from cictl.records import RESULT, latest_checkpoint
from cictl.workflow import finetune, invert, restart
from cictl.workflow.tracking import tensorboard_folder
from tests.support import Recorder, silent

RUN = {"invert": invert.run, "finetune": finetune.run}


@pytest.fixture(params=["invert", "finetune"])
def stage(request) -> str:
    return request.param


def files_of(workspace, stage: str) -> dict[str, str]:
    """The SHA-256 of everything that a training has, by path in the workspace."""
    found = [*workspace.stage_folder(stage).rglob("*"), workspace.logs / f"{stage}.jsonl"]
    return {path.relative_to(workspace.root).as_posix(): sha256_file(path) for path in found if path.is_file()}


def told(recorder: Recorder) -> list[PutAside]:
    return [event for event in recorder.events if isinstance(event, PutAside)]


@pytest.mark.parametrize("bad", [
    {"concept.start": "qqzzqq"}, {"invert.prompts": []}, {"invert.batch_size": 0}, {"model.clip": "/nowhere"},
    {"model.id": "/nowhere"}, {"tracking.to": ["nothing_of_that_name"]}, {"nothing": 1},
])  # fmt: skip
def test_what_cannot_begin_leaves_the_old_training_as_it_was(copy_of_trained, bad):
    before, recorder = files_of(copy_of_trained, "invert"), Recorder()
    with pytest.raises(CictlError):
        invert.run(copy_of_trained, recorder, restart=True, overrides=bad)
    assert files_of(copy_of_trained, "invert") == before
    assert sorted(path.name for path in copy_of_trained.checkpoints.iterdir() if path.name != ".lock") == ["finetune", "invert"]
    assert told(recorder) == []
    assert invert.run(copy_of_trained, silent).action == "skip"


@pytest.mark.parametrize("spoil", ["too few", "unreadable"])
def test_photographs_that_cannot_be_used_leave_the_old_training_as_it_was(copy_of_trained, stage, spoil):
    before, photographs = files_of(copy_of_trained, stage), sorted(copy_of_trained.images.iterdir())
    for path in photographs[1:]:
        path.unlink() if spoil == "too few" else path.write_bytes(b"no picture")
    with pytest.raises(CictlError) as caught:
        RUN[stage](copy_of_trained, silent, restart=True)
    assert caught.value.exit_code == 2
    assert files_of(copy_of_trained, stage) == before


def test_a_signal_before_the_first_step_leaves_the_old_training_as_it_was(copy_of_trained, stage):
    before = files_of(copy_of_trained, stage)

    def interrupt(event) -> None:
        if isinstance(event, PhaseStarted) and event.message.startswith("encoding"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="nothing has changed") as caught:
        RUN[stage](copy_of_trained, interrupt, restart=True)
    assert caught.value.stopped_with == 143
    assert files_of(copy_of_trained, stage) == before


def test_a_full_disk_at_the_first_checkpoint_leaves_the_old_training_as_it_was(copy_of_trained, stage, monkeypatch):
    from cictl.engine import checkpoint

    def full(path: Path, content: object) -> str:
        raise OSError(28, "No space left on device")

    before = files_of(copy_of_trained, stage)
    with monkeypatch.context() as patched, pytest.raises(ResourceError) as caught:
        patched.setattr(checkpoint, "write_atomic", full)
        RUN[stage](copy_of_trained, silent, restart=True)
    assert caught.value.hint.endswith("what was trained before is as it was, and the same command begins anew")
    assert files_of(copy_of_trained, stage) == before
    assert RUN[stage](copy_of_trained, silent).action == "skip"


FAILURES = [ResourceError("full", "make room", slug="-"), ProcessLost("lost", "look at it", slug="-"), MemoryError()]


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("failure", FAILURES, ids=["disk", "process", "memory"])
@pytest.mark.parametrize("before", ["trained", "untrained"])
def test_what_fails_later_says_what_goes_on_from_where(copy_of_trained, make_workspace, before, failure, restart):
    workspace, given = copy_of_trained, {"checkpoint.interval": 3, "invert.steps": 12}
    if before == "untrained":
        workspace = make_workspace()
    done = 9 if before == "trained" and not restart else 3

    def fail(event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == done:
            raise failure

    with pytest.raises(CictlError) as caught:
        invert.run(workspace, fail, restart=restart, overrides=given)
    without = " without --restart" if restart else ""
    assert caught.value.hint.splitlines()[-1] == f"the same command{without} goes on from step {done}"
    outcome = invert.run(workspace, silent, overrides=given)
    assert (outcome.action, outcome.first_step, outcome.steps) == ("resume", done, 12)


def test_what_is_typed_as_the_note_says_brings_it_back(copy_of_trained, stage):
    before, recorder = files_of(copy_of_trained, stage), Recorder()
    RUN[stage](copy_of_trained, recorder, restart=True, overrides={f"{stage}.steps": 3, "seed": 5})
    newer = sha256_file(copy_of_trained.stage_folder(stage) / "step-0000003" / RESULT)
    (moved,) = told(recorder)
    assert len(moved.back.splitlines()) == 1
    assert [moved.path] == list((copy_of_trained.checkpoints / "archive").iterdir())
    begun = next(number for number, event in enumerate(recorder.events) if isinstance(event, StageStarted))
    saved = next(event for event in recorder.events if isinstance(event, CheckpointSaved))
    assert recorder.events.index(moved) < begun
    assert saved == CheckpointSaved(0, copy_of_trained.stage_folder(stage) / "step-0000000")

    subprocess.run(["/bin/sh", "-c", moved.back], check=True, cwd=Path.cwd())
    assert files_of(copy_of_trained, stage) == before
    assert RUN[stage](copy_of_trained, silent).action == "skip"
    (kept,) = (copy_of_trained.checkpoints / "archive").iterdir()
    assert sha256_file(kept / "step-0000003" / RESULT) == newer


class Killed(BaseException):
    """In place of SIGKILL."""


CALLS = ["write_atomic", "archive", "rename 1", "rename 2", "rename 3", "begin"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_while_one_gives_way_to_the_other_loses_nothing(copy_of_trained, monkeypatch, call, when):
    curves = tensorboard_folder(copy_of_trained, "invert") / "events"
    curves.parent.mkdir(parents=True)
    curves.write_text("curves")
    before = set(files_of(copy_of_trained, "invert").values()) | {sha256_file(curves)}
    renamed, name = [], call.partition(" ")[0]
    real = {"rename": Path.rename, "begin": restart.EventLog.begin}.get(name) or getattr(restart, name)

    def killing(path, *arguments):
        renamed.append(path)
        counts = name != "rename" or ".staging" not in path.name
        number = sum(".staging" not in one.name for one in renamed) if name == "rename" else 1
        dies = counts and (name != "rename" or call == f"rename {number}")
        if dies and when == "before":
            raise Killed
        result = real(path, *arguments)
        if dies:
            raise Killed
        return result

    with monkeypatch.context() as patched, pytest.raises(Killed):
        target = {"rename": Path, "begin": restart.EventLog}.get(name, restart)
        patched.setattr(target, name, killing)
        invert.run(copy_of_trained, silent, restart=True, overrides={"seed": 5})
    assert before <= {sha256_file(path) for path in copy_of_trained.root.rglob("*") if path.is_file()}

    outcome = invert.run(copy_of_trained, silent, restart=True, overrides={"seed": 6, "invert.steps": 2})
    assert (outcome.action, outcome.steps) == ("run", 2)
    assert before <= {sha256_file(path) for path in copy_of_trained.root.rglob("*") if path.is_file()}
    assert not list(copy_of_trained.checkpoints.glob(".beginning-*"))


def test_a_restart_where_nothing_was_trained_has_nothing_to_tell(make_workspace):
    recorder, workspace = Recorder(), make_workspace()
    assert invert.run(workspace, recorder, restart=True, overrides={"invert.steps": 1}).action == "run"
    assert told(recorder) == [] and not (workspace.checkpoints / "archive").exists()


def test_the_log_of_the_new_training_has_what_came_before_its_first_step(copy_of_trained):
    recorder = Recorder()
    invert.run(copy_of_trained, recorder, restart=True, overrides={"invert.steps": 1})
    log = (copy_of_trained.logs / "invert.jsonl").read_text().splitlines()
    assert [line.split('"')[3] for line in log] == [event.name for event in recorder.events]


# -- what is said of earlier --set --------------------------------------------------------------------


def test_what_was_set_for_stage_1_alone_is_not_told_to_stage_2(make_workspace):
    workspace, recorder = make_workspace(), Recorder()
    invert.run(workspace, silent, overrides={"invert.steps": 2, "checkpoint.interval": 3, "evaluate.noun": "teapot"})
    finetune.run(workspace, recorder, overrides={"finetune.steps": 1})
    assert [text for text in recorder.texts(Note) if "--set" in text] == [
        "kept from an earlier --set, over ci.yaml: checkpoint.interval=3"
    ]
    kept = latest_checkpoint(workspace.stage_folder("finetune"))[0].manifest["overrides"]
    assert kept["invert.steps"] == 2
    again = Recorder()
    invert.run(workspace, again, overrides={"invert.steps": 3})
    assert "invert.steps" not in "".join(again.texts(Note))
    finetune.run(workspace, again, restart=True)
    assert not any("invert" in text for text in again.texts(Note) if "--set" in text)

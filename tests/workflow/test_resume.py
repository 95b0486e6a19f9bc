"""The same command again goes on with the same bits, says that it is done, or says why it cannot."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import Config
from cictl.errors import Interrupted, ResourceError, StateError
from cictl.events import CheckpointSaved, Note, StageStarted, StepCompleted, Warned
from cictl.records import RESULT, SNAPSHOTS, STATE, checkpoint_folders, latest_checkpoint, snapshots
from cictl.workflow import finetune, invert
from cictl.workflow.saving import milestones_of
from cictl.workspace import Workspace
from tests.support import Recorder, assert_left_the_same, left_by, silent

STEPS = 12
RUN = {"invert": invert.run, "finetune": finetune.run}


def train(workspace: Workspace, stage: str, observe=silent, **overrides):
    changes = {f"{stage}.steps": STEPS, **{key.replace("__", "."): value for key, value in overrides.items()}}
    return RUN[stage](workspace, observe, overrides=changes)


@pytest.fixture(params=["invert", "finetune"])
def stage(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(tmp_path_factory, base, photographs) -> Workspace:
    """Both stages, 12 steps each, uninterrupted."""
    from cictl.workflow import init
    from tests.support import quick, write_settings

    workspace = init.run(tmp_path_factory.mktemp("whole") / "my-teapot", model=str(base), images=photographs, name="my-teapot")
    write_settings(workspace, quick(base))
    for stage in RUN:
        train(workspace, stage)
    return workspace


@pytest.fixture
def before(whole: Workspace, stage: str, tmp_path: Path) -> Workspace:
    """A workspace in which the stage is still to come."""
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "before"))
    shutil.rmtree(workspace.stage_folder(stage))
    (workspace.logs / f"{stage}.jsonl").unlink()
    return workspace


@pytest.mark.parametrize(("stops", "number"), [([9], signal.SIGTERM), ([11], signal.SIGINT), ([1, 4, 5, 7], signal.SIGINT)])
def test_a_stopped_training_goes_on_to_the_same_bits_and_the_same_log(whole, before, stage, stops, number):
    for step in stops:
        with pytest.raises(Interrupted, match=f"{step} of 12 steps") as caught:
            train(before, stage, Recorder(stop_after=step, signal_number=number), tracking__interval=1)
        assert caught.value.stopped_with == 128 + number
        assert caught.value.hint.startswith(f"cictl {stage} ")
        assert left_by(before, stage).step == step
    outcome = train(before, stage)
    assert (outcome.action, outcome.first_step, outcome.steps) == ("resume", stops[-1], STEPS)
    assert_left_the_same(left_by(before, stage), left_by(whole, stage))


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
def test_neither_the_beginning_nor_the_end_is_kept_along_the_way_however_few_the_steps(steps):
    config = Config.model_validate({"invert": {"steps": steps}, "checkpoint": {"snapshots": 5}})
    assert milestones_of(config, "invert") <= set(range(1, steps))


def test_snapshots_stand_at_equal_distances_and_are_the_same_after_any_stop(whole, before, stage):
    """A kill between a checkpoint and the snapshot of the same step loses nothing either."""
    kept = {one.step: one.result_hash for one in snapshots(whole.stage_folder(stage))}
    assert list(kept) == [3, 6, 9]
    for step in (4, 6):
        with pytest.raises(Interrupted):
            train(before, stage, Recorder(stop_after=step), tracking__interval=1)
    shutil.rmtree(before.stage_folder(stage) / SNAPSHOTS / "step-0000006")
    train(before, stage)
    assert {one.step: one.result_hash for one in snapshots(before.stage_folder(stage))} == kept
    assert not list((before.stage_folder(stage) / SNAPSHOTS).rglob(STATE))


def test_none_are_kept_where_none_are_wanted(before, stage):
    train(before, stage, checkpoint__snapshots=0)
    assert not (before.stage_folder(stage) / SNAPSHOTS).exists()


def test_what_is_kept_for_the_backward_pass_changes_no_bit_in_the_middle_of_a_training_either(whole, before, stage):
    recorder = Recorder(stop_after=5)
    with pytest.raises(Interrupted):
        train(before, stage, recorder, tracking__interval=1, model__memory="lowest")
    assert any("model.memory is lowest: all blocks are computed again" in message for message in recorder.texts(Note))
    train(before, stage, model__memory="low")
    assert_left_the_same(left_by(before, stage), left_by(whole, stage))


def test_stratified_timesteps_are_another_training_which_goes_on_to_its_own_bits(whole, before, stage, tmp_path):
    stratified = {f"{stage}__timesteps": "stratified"}
    other = Workspace(shutil.copytree(before.root, tmp_path / "other"))
    train(other, stage, **stratified)
    with pytest.raises(Interrupted):
        train(before, stage, Recorder(stop_after=5), tracking__interval=1, **stratified)
    train(before, stage)
    assert_left_the_same(left_by(before, stage), left_by(other, stage))
    assert left_by(other, stage).losses != left_by(whole, stage).losses
    with pytest.raises(StateError, match=f"{stage}.timesteps: stratified -> uniform"):
        train(before, stage, **{f"{stage}__timesteps": "uniform"})


def test_a_larger_number_of_steps_goes_on_with_a_finished_run_and_keeps_it_for_the_next_command(whole, before, stage):
    assert train(before, stage, **{f"{stage}__steps": 10}).steps == 10
    assert train(before, stage).first_step == 10
    assert_left_the_same(left_by(before, stage), left_by(whole, stage))
    outcome = RUN[stage](before, silent)  # ci.yaml has other steps; --set of the run is kept
    assert (outcome.action, outcome.steps) == ("skip", STEPS)


def test_a_finished_stage_is_skipped_without_touching_a_file(whole, stage, tmp_path):
    before = Workspace(shutil.copytree(whole.root, tmp_path / "copy"))
    files = {path: path.stat().st_mtime_ns for path in before.root.rglob("*") if path.is_file() and ".lock" not in path.name}
    recorder = Recorder()
    outcome = train(before, stage, recorder)
    assert (outcome.action, outcome.steps) == ("skip", STEPS)
    assert outcome.losses == left_by(whole, stage).losses[-1][1]
    assert not recorder.events
    after = {path: path.stat().st_mtime_ns for path in before.root.rglob("*") if path.is_file() and ".lock" not in path.name}
    assert after == files


def test_fewer_steps_than_are_done_are_done_already(before, stage):
    train(before, stage, **{f"{stage}__steps": 5})
    assert train(before, stage, **{f"{stage}__steps": 3}).action == "skip"


def test_stage_1_that_is_done_by_the_steps_of_now_is_done_for_stage_2(make_workspace):
    """Stopped, then asked for fewer steps than it has: what status and invert call done, finetune must not refuse."""
    workspace = make_workspace()
    with pytest.raises(Interrupted):
        train(workspace, "invert", Recorder(stop_after=5), tracking__interval=1)
    with pytest.raises(StateError, match="5 of 12 steps") as caught:
        finetune.run(workspace, silent)
    assert "--set invert.steps=5" in caught.value.hint
    assert finetune.run(workspace, silent, overrides={"invert.steps": 5}).action == "run"
    assert finetune.run(workspace, silent).action == "skip"  # it was said once


def test_a_killed_training_is_cut_back_to_its_checkpoint_and_gives_the_same_bits_and_log(whole, before, stage):
    with pytest.raises(Interrupted):
        train(before, stage, Recorder(stop_after=9), tracking__interval=1)
    # as SIGKILL in the middle of step 12 and of writing a checkpoint would leave it
    log = before.logs / f"{stage}.jsonl"
    later = [
        line for line in (whole.logs / f"{stage}.jsonl").read_text().splitlines() if json.loads(line).get("step") in (10, 11)
    ]
    with log.open("a") as file:
        file.write("\n".join(later) + '\n{"event": "StepCompl')
    staging = before.stage_folder(stage) / ".staging-1"
    staging.mkdir()
    (staging / RESULT).write_bytes(b"half")
    assert train(before, stage).first_step == 9
    assert not staging.exists()
    assert_left_the_same(left_by(before, stage), left_by(whole, stage))
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if json.loads(line)["event"] == "StepCompleted"]
    assert steps == list(range(1, STEPS + 1))


# -- damage -----------------------------------------------------------------------------------------


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def truncate(path: Path, place: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * place)])


def remove(path: Path, place: float) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, damage) for name in (RESULT, STATE) for damage in (flip, truncate, remove)),
     ("manifest.json", truncate), ("manifest.json", remove)],
)  # fmt: skip
def test_the_checkpoint_before_is_used_where_the_newest_is_damaged(whole, tmp_path, name, damage):
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "damaged"))
    folder = workspace.stage_folder("invert")
    damage(folder / "step-0000012" / name, 0.7)
    recorder = Recorder()
    outcome = train(workspace, "invert", recorder)
    assert (outcome.action, outcome.first_step, outcome.steps) == ("resume", 8, STEPS)
    [warning] = recorder.texts(Warned)
    assert "step-0000012 is passed over" in warning
    assert name in warning
    assert_left_the_same(left_by(workspace, "invert"), left_by(whole, "invert"))


def test_a_flipped_bit_anywhere_in_the_manifest_is_found(whole, tmp_path):
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "damaged"))
    path = workspace.stage_folder("invert") / "step-0000012" / "manifest.json"
    content = path.read_bytes()
    unseen = []
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if latest_checkpoint(workspace.stage_folder("invert"))[0].step == STEPS:
            unseen.append(content[place - 15 : place + 15])
    assert not unseen


def test_the_log_is_cut_back_to_the_whole_checkpoint(whole, tmp_path):
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "damaged"))
    truncate(workspace.stage_folder("invert") / "step-0000012" / STATE, 0.5)
    started: list[list[int]] = []

    def look(event) -> None:
        if isinstance(event, StageStarted):
            lines = (workspace.logs / "invert.jsonl").read_text().splitlines()
            started.append([json.loads(line)["step"] for line in lines if "StepCompleted" in line])

    train(workspace, "invert", look)
    assert started == [list(range(1, 9))]


@pytest.mark.parametrize("stage", ["invert"])
def test_where_no_checkpoint_is_whole_nothing_is_trained_before_a_restart(before, stage):
    train(before, stage, **{f"{stage}__steps": 5})
    for folder in checkpoint_folders(before.stage_folder(stage)):
        truncate(folder / RESULT, 0.5)
    with pytest.raises(StateError, match="no checkpoint of cictl invert is whole") as caught:
        train(before, stage)
    assert "--restart" in caught.value.hint
    assert invert.run(before, silent, restart=True, overrides={"invert.steps": 2}).action == "run"


def test_a_damaged_checkpoint_beyond_the_steps_asked_for_is_not_taken_for_the_one_just_saved(whole, tmp_path):
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "damaged"))
    truncate(workspace.stage_folder("invert") / "step-0000012" / "manifest.json", 0.5)
    outcome = train(workspace, "invert", invert__steps=10)
    assert outcome.steps == 10


def test_a_damaged_checkpoint_does_not_push_out_the_whole_one_before(whole, tmp_path):
    workspace = Workspace(shutil.copytree(whole.root, tmp_path / "damaged"))
    truncate(workspace.stage_folder("invert") / "step-0000012" / RESULT, 0.5)
    with pytest.raises(Interrupted):
        train(workspace, "invert", Recorder(stop_after=10), tracking__interval=1)
    flip(workspace.stage_folder("invert") / "step-0000010" / RESULT, 0.5)
    assert latest_checkpoint(workspace.stage_folder("invert"))[0].step == 8


# -- a full disk ------------------------------------------------------------------------------------


def full_disk(monkeypatch, module, after: int = 0):
    real, calls = module.write_atomic, []

    def write(path: Path, content: object) -> str:
        calls.append(path)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(module, "write_atomic", write)


def test_a_disk_that_is_full_at_a_checkpoint_gives_exit_5_and_the_run_goes_on_later(whole, before, stage, monkeypatch):
    from cictl.engine import checkpoint

    with monkeypatch.context() as patched:
        full_disk(patched, checkpoint, after=8)  # steps 0 and 4 fit, and the snapshot of step 3
        with pytest.raises(ResourceError, match="No space left") as caught:
            train(before, stage)
        assert caught.value.exit_code == 5
    assert left_by(before, stage).step == 4
    assert sorted(path.name for path in before.stage_folder(stage).iterdir()) == ["snapshots", "step-0000000", "step-0000004"]
    assert train(before, stage).first_step == 4
    assert_left_the_same(left_by(before, stage), left_by(whole, stage))


def test_a_disk_that_is_full_from_the_beginning_gives_exit_5(before, stage, monkeypatch):
    from cictl import workspace

    full_disk(monkeypatch, workspace)
    with pytest.raises(ResourceError):
        train(before, stage)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_at_the_log_gives_exit_5(tmp_path):
    path = tmp_path / "invert.jsonl"
    from cictl.workflow.event_log import EventLog

    log = EventLog(path, None, silent)
    log._file.close()
    log._file = Path("/dev/full").open("w")  # noqa: SIM115
    with pytest.raises(ResourceError):
        log(StepCompleted(1, {}))


# -- restart ----------------------------------------------------------------------------------------


def test_restart_puts_everything_aside_and_gives_the_same_bits_again(before, stage):
    train(before, stage, **{f"{stage}__steps": 5})
    first = left_by(before, stage)
    old = {path.name: (path / RESULT).read_bytes() for path in checkpoint_folders(before.stage_folder(stage))}
    for count in (1, 2):
        outcome = RUN[stage](before, silent, restart=True, overrides={f"{stage}.steps": 5})
        assert (outcome.action, outcome.first_step) == ("run", 0)
        archived = sorted((before.checkpoints / "archive").iterdir())
        assert len(archived) == count
        assert {path.name: (path / RESULT).read_bytes() for path in checkpoint_folders(archived[0])} == old
    assert_left_the_same(left_by(before, stage), first)


@pytest.mark.parametrize("stage", ["invert"])
def test_restart_does_not_delete_the_log_of_the_run_that_it_puts_aside(before, stage):
    train(before, stage, invert__steps=3)
    old = (before.logs / "invert.jsonl").read_text()
    invert.run(before, silent, restart=True, overrides={"invert.steps": 2})
    kept = [path.read_text() for path in before.root.rglob("*.jsonl")]
    assert any(text.startswith(old) for text in kept)


def test_restart_forgets_what_was_set_before(before, stage):
    train(before, stage, **{f"{stage}__steps": 3, f"{stage}__learning_rate": 0.5})
    outcome = RUN[stage](before, silent, restart=True, overrides={f"{stage}.steps": 2})
    manifest = latest_checkpoint(before.stage_folder(stage))[0].manifest
    assert outcome.steps == 2
    assert {**manifest["overrides"], "invert.steps": 2} == {"invert.steps": 2, f"{stage}.steps": 2}
    assert manifest["config"][stage]["learning_rate"] == {"invert": 0.01, "finetune": 0.001}[stage]


def test_a_dry_run_says_what_would_be_done_and_does_nothing(before, stage):
    def look() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in before.root.rglob("*")}

    files = look()
    outcome = RUN[stage](before, silent, overrides={f"{stage}.steps": 7}, dry_run=True)
    assert (outcome.action, outcome.steps, outcome.dry_run) == ("run", 7, True)
    assert look() == files


def test_a_dry_run_estimates_the_steps_that_it_says_are_left(make_workspace):
    """Also where a kill left no more than what the run was started with, which holds its --set."""
    workspace = make_workspace()
    with pytest.raises(Interrupted):
        invert.run(workspace, Recorder(stop_after=1), overrides={"invert.steps": 50, "tracking.interval": 1})
    shutil.rmtree(workspace.stage_folder("invert") / "step-0000001")
    said = CliRunner().invoke(app, ["invert", "--dry-run", "-C", str(workspace.root)]).stdout
    assert "from step 0 to 50" in said and "for 50 steps" in said


def test_checkpoints_come_at_their_interval_and_hold_the_losses_until_then(before, stage):
    recorder = Recorder()
    train(before, stage, recorder, checkpoint__interval=10)
    assert [event.step for event in recorder.events if isinstance(event, CheckpointSaved)] == [0, 10, 12]
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == list(range(1, 13))


def test_stage_2_needs_stage_1_to_be_done(make_workspace):
    workspace = make_workspace()
    with pytest.raises(StateError, match="has not been run") as caught:
        finetune.run(workspace, silent)
    assert (caught.value.exit_code, caught.value.hint) == (3, "cictl invert")
    with pytest.raises(Interrupted):
        invert.run(workspace, Recorder(stop_after=2), overrides={"tracking.interval": 1})
    with pytest.raises(StateError, match="2 of 8 steps"):
        finetune.run(workspace, silent)


def test_no_signal_handler_and_no_lock_outlives_a_training(before, stage):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(before, stage, **{f"{stage}__steps": 1})
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not (before.checkpoints / ".lock-holder.json").exists()

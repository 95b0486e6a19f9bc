"""Signals, kills and two commands at once, on real processes."""

from __future__ import annotations

import json as json_module
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.errors import BusyError
from cictl.events import PhaseStarted, Warned
from cictl.records import latest_checkpoint
from cictl.stops import STOPPING
from cictl.workflow import generate, invert
from tests.support import Recorder, assert_left_the_same, left_by, silent

MANY = "--set=invert.steps=100000"


def start(workspace, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cictl", "invert", "-C", str(workspace.root), MANY, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def wait_for_checkpoint(workspace, process, beyond: int = 0) -> int:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[0]
        found, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
        if found and found.step > beyond:
            return found.step
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


def end(process) -> None:
    if process.poll() is None:
        process.kill()
        process.wait(20)


def test_beside_a_training_one_can_generate_but_not_train_and_a_signal_ends_it_with_its_code(make_workspace):
    workspace = make_workspace(checkpoint__interval=40)
    process = start(workspace)
    try:
        wait_for_checkpoint(workspace, process)
        with pytest.raises(BusyError, match=rf"`cictl invert` \(process {process.pid} "):
            invert.run(workspace, silent)
        second = start(workspace)
        output = second.communicate(timeout=60)[0]
        assert second.returncode == 75, output
        assert str(process.pid) in output
        recorder = Recorder()
        assert generate.run(workspace, ["S*"], recorder, overrides={"generate.count": 1}).pictures
        assert any("of 100000 steps" in text for text in recorder.texts(Warned))
        assert process.poll() is None
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process.send_signal(number)
            output = process.communicate(timeout=60)[0]
            assert process.returncode == code, output
            stopped = left_by(workspace, "invert")
            assert f"stopped after {stopped.step} of 100000 steps" in " ".join(output.split())
            assert stopped.losses[-1][0] == stopped.step
            assert "cictl invert" in output
            assert "Traceback" not in output
            if number == signal.SIGINT:
                process = start(workspace, "--set=checkpoint.interval=4")
                wait_for_checkpoint(workspace, process, beyond=stopped.step)
    finally:
        end(process)


def test_a_training_that_was_killed_goes_on_to_the_same_bits(make_workspace):
    workspace, uninterrupted = make_workspace(), make_workspace("uninterrupted")

    def train() -> None:
        invert.run(workspace, silent, overrides={"invert.steps": 100_000})

    for _ in range(2):  # the second goes on with what the first left
        process = multiprocessing.get_context("fork").Process(target=train)
        process.start()
        end_of_waiting = time.monotonic() + 60
        beyond = left_by(workspace, "invert").step if workspace.stage_folder("invert").exists() else 0
        while time.monotonic() < end_of_waiting:
            found, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
            if found and found.step > beyond:
                break
            time.sleep(0.02)
        process.kill()
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    killed = left_by(workspace, "invert").step
    assert killed >= 8
    outcome = invert.run(workspace, silent, overrides={"invert.steps": killed + 3})
    assert (outcome.action, outcome.first_step) == ("resume", killed)
    invert.run(uninterrupted, silent, overrides={"invert.steps": killed + 3})
    assert_left_the_same(left_by(workspace, "invert"), left_by(uninterrupted, "invert"))


def test_a_training_that_moves_on_while_a_picture_is_made_is_no_obstacle(copy_of_trained):
    """What a training beside it does in the meantime: newer checkpoints come, and push out the one that was chosen."""
    folder = copy_of_trained.stage_folder("finetune")

    def move_on(event) -> None:
        if isinstance(event, PhaseStarted) and (chosen := latest_checkpoint(folder)[0]) and chosen.step == 6:
            chosen.folder.rename(folder / ".removed")

    assert generate.run(copy_of_trained, ["S*"], move_on, overrides={"generate.count": 1}).pictures


@pytest.mark.parametrize("json", [False, True])
def test_a_signal_before_anything_waits_for_the_end_of_a_step_is_said_too(make_workspace, monkeypatch, json):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(invert, "run", interrupted)
    arguments = ["invert", "-C", str(make_workspace().root), *(["--json"] if json else [])]
    result = CliRunner().invoke(app, arguments)
    said = result.stdout if json else result.stderr
    assert result.exit_code == 130
    assert "stopped by Ctrl-C" in said and "the same command again" in said


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pty")
def test_a_second_ctrl_c_leaves_the_terminal_as_it_was_and_says_so(make_workspace):
    import pty

    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "cictl", "invert", "-C", str(make_workspace().root), MANY]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)

    def read_until(*words: bytes) -> bytes:
        seen = b""
        while not all(word in seen for word in words):
            try:
                seen += os.read(ours, 4096)
            except OSError:  # the terminal's other end is closed
                break
        return seen

    try:
        assert b"loading the libraries" in read_until(b"loading the libraries")
        process.send_signal(signal.SIGINT)
        assert STOPPING.encode() in read_until(STOPPING.encode())
        process.send_signal(signal.SIGINT)
        rest = read_until(b"\0")
        assert process.wait(20) == 130
        assert rest.rindex(b"\x1b[?25h") < rest.rindex(b"error: stopped by Ctrl-C")
        assert b"\x1b[?25l" not in rest
    finally:
        end(process)
        os.close(ours)


INTERRUPTED = """
import os, signal, sys

class Interrupt:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {where!r}:
            exec("os.kill(os.getpid(), signal.SIGINT)")  # as where a dataclass is made: Python then has an exit code of its own

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, in which tests may run, ignores it
sys.meta_path.insert(0, Interrupt)
sys.argv = ["cictl", *sys.argv[1:]]
from cictl.__main__ import main
main()
"""


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("where", ["typer", "cictl.cli.app", "cictl.models.cost", "torch"])
def test_ctrl_c_while_anything_is_imported_is_said_and_has_its_code(make_workspace, where, json):
    root = str(make_workspace().root)
    command = [sys.executable, "-c", INTERRUPTED.format(where=where), "check", "-C", root, *(["--json"] if json else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 130, done.stderr
    last = json_module.loads(done.stdout.splitlines()[-1]) if json else {"event": "Error", "message": done.stderr}
    assert last["event"] == "Error" and "stopped by Ctrl-C" in last["message"]
    assert "Traceback" not in done.stderr

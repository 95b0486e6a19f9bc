"""Signals, kills and two commands at once, on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cictl.errors import BusyError
from cictl.events import Warned
from cictl.records import latest_checkpoint
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


def test_a_training_that_was_stopped_and_killed_goes_on_to_the_same_bits(make_workspace):
    workspace = make_workspace()
    process = start(workspace)
    try:
        wait_for_checkpoint(workspace, process)
        # SIGTERM: the step is finished, a checkpoint saved
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 143, output
        stopped = left_by(workspace, "invert").step
        assert f"stopped after {stopped} of 100000 steps" in " ".join(output.split())
        assert left_by(workspace, "invert").losses[-1][0] == stopped

        # SIGKILL: the last checkpoint is whole
        process = start(workspace)
        wait_for_checkpoint(workspace, process, beyond=stopped)
        process.kill()
        process.wait(20)
        killed = left_by(workspace, "invert").step
        assert killed > stopped
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(20)
    outcome = invert.run(workspace, silent, overrides={"invert.steps": killed + 3})
    assert (outcome.action, outcome.first_step) == ("resume", killed)
    uninterrupted = make_workspace("uninterrupted")
    invert.run(uninterrupted, silent, overrides={"invert.steps": killed + 3})
    assert_left_the_same(left_by(workspace, "invert"), left_by(uninterrupted, "invert"))


def test_beside_a_training_one_can_generate_but_not_train_and_ctrl_c_ends_it_with_130(make_workspace):
    workspace = make_workspace()
    process = start(workspace)
    try:
        wait_for_checkpoint(workspace, process)
        # beside it: a second writer is refused, a reader is not
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
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 130, output
    assert "cictl invert" in output
    assert "Traceback" not in output

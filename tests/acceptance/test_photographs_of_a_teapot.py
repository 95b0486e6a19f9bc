"""The whole path on real photographs, with a kill in each stage.

Set CICTL_DREAMBENCH to a folder that holds DreamBench's subjects (https://github.com/google/dreambooth), such as
teapot/; without it the test is skipped. The base model is the toybox: this is about the path, not the pictures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DREAMBENCH = os.environ.get("CICTL_DREAMBENCH", "")
STEPS = {"invert": 30, "finetune": 16}

pytestmark = pytest.mark.skipif(not DREAMBENCH, reason="CICTL_DREAMBENCH is not set")


def cictl(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "cictl", *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def kill_in_the_middle(folder: Path, stage: str) -> None:
    """Start a stage, and kill it once its first checkpoint with steps stands."""
    arguments = [sys.executable, "-m", "cictl", stage, "--set", "checkpoint.interval=4", "--steps", str(STEPS[stage])]
    running = subprocess.Popen(arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if list((folder / "teapot" / "checkpoints" / stage).glob("step-0000004")):
            break
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()


def test_every_command_works_and_each_stage_survives_a_kill(tmp_path: Path) -> None:
    photographs = sorted((Path(DREAMBENCH) / "teapot").glob("*.jpg"))[:5]
    cictl(tmp_path, "init", "teapot", "--model", "toybox", "--images", *map(str, photographs))
    before = [path.read_bytes() for path in sorted((tmp_path / "teapot" / "images").iterdir())]

    for stage in ("invert", "finetune"):
        kill_in_the_middle(tmp_path, stage)
        report = json.loads(cictl(tmp_path, "status", "--json"))
        place = ("invert", "finetune").index(stage)
        assert 4 <= report["stages"][place]["step"] < STEPS[stage]
        assert report["next"] == f"cictl {stage}"
        outcome = json.loads(cictl(tmp_path, stage, "--json").splitlines()[-1])
        assert outcome["action"] == "resume"
        assert outcome["first_step"] >= 4
        assert outcome["steps"] == STEPS[stage]  # --steps of the killed run was kept

    cictl(tmp_path, "preview-aux", "-n", "1", "--set", "generate.steps=4")
    made = json.loads(cictl(tmp_path, "generate", "S* in the snow", "-n", "2", "--steps", "4", "--json").splitlines()[-1])
    assert [picture["seed"] for picture in made["pictures"]] == [0, 1]
    files = json.loads(cictl(tmp_path, "export", "--json").splitlines()[-1])["files"]
    assert len(files) == 2
    assert before == [path.read_bytes() for path in sorted((tmp_path / "teapot" / "images").iterdir())]

"""The scripts of docs/scaling.md and docs/examples, run as a reader would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cictl.workflow import init
from tests.support import left_by, write_settings

ROOT = Path(__file__).parents[1]
QUICK = {"invert.steps": 2, "finetune.steps": 2, "invert.batch_size": 2, "finetune.batch_size": 2}


def test_ray_trains_several_workspaces_and_names_the_one_that_it_cannot(tmp_path, photographs):
    pytest.importorskip("ray")
    workspaces = [init.run(tmp_path / name, model="toybox", images=photographs, name="mine") for name in ("one", "two")]
    for workspace in workspaces:
        write_settings(workspace, QUICK)
    empty = init.run(tmp_path / "empty", model="toybox", name="mine")
    folders = [str(workspace.root) for workspace in (*workspaces, empty)]
    script = str(ROOT / "docs" / "examples" / "ray_concepts.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, *arguments, "--gpus", "0"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)

    done = run(*folders)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert {f"{folder}: done" for folder in folders[:2]} < set(lines)
    assert any(line.startswith(f"{empty.root}: error: ") and "photograph" in line for line in lines), done.stdout
    for workspace in workspaces:
        assert [left_by(workspace, stage).step for stage in ("invert", "finetune")] == [2, 2]
    again = run(*folders[:2])
    assert (again.returncode, sorted(again.stdout.splitlines())) == (0, sorted(f"{folder}: done" for folder in folders[:2]))


@pytest.mark.parametrize(
    ("codes", "ran", "requeued"),
    [((0, 0), "invert finetune", ""), ((143, 0), "invert", "7_1"), ((0, 143), "invert finetune", "7_1"), ((3, 0), "invert", "")],
)
def test_the_script_for_slurm_trains_its_own_workspace_and_queues_what_was_stopped(tmp_path, codes, ran, requeued):
    """On stand-ins of srun, scontrol and cictl, since there is no Slurm here."""
    (script,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    concepts, programs = tmp_path / "concepts", tmp_path / "bin"
    for folder in (concepts / "a", concepts / "b c", concepts / "d", programs):
        folder.mkdir(parents=True)
    for name, text in {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/requeued',
        "cictl": f'echo "$1" >> ran; test "$1" = invert && exit {codes[0]}; exit {codes[1]}',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    done = subprocess.run(
        ["bash"], input=script.replace("/shared/concepts", str(concepts)), text=True, env=environment, check=False
    )
    assert done.returncode == (codes[0] or codes[1])
    assert (concepts / "b c" / "ran").read_text().split() == ran.split()
    assert not (concepts / "a" / "ran").exists()
    found = (tmp_path / "requeued").read_text().strip() if (tmp_path / "requeued").exists() else ""
    assert found == (f"requeue {requeued}" if requeued else "")


def test_what_is_said_of_python_draws(copy_of_trained, capsys):
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    few = text.replace('"invert.steps": 500', '"invert.steps": 8').replace("my-teapot", str(copy_of_trained.root))
    exec(compile(few, "docs/scaling.md", "exec"), {})
    assert len(list(copy_of_trained.outputs.glob("s-in-the-snow-*.png"))) == capsys.readouterr().out.count(".png") == 2

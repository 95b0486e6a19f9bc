"""Commands that only look start quickly: they import no torch. And exit codes through ``python -m cictl``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app

HEAVY = ("torch", "diffusers", "transformers", "accelerate")


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd or root, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


def cictl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "cictl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, env={**os.environ, "PYTHONPATH": root})


REPORT = f"print('\\n' + ' '.join(name for name in {HEAVY} if name in sys.modules) + '|')"

RUN = f"""
import sys
sys.argv = ["cictl", *sys.argv[1:]]
from cictl.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code
{REPORT}
sys.exit(code)
"""


def test_the_command_line_imports_no_torch():
    done = python(f"import sys, cictl.cli.app\n{REPORT}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "|"


def test_init_and_status_import_no_torch_even_in_a_trained_workspace(tmp_path, trained, photographs):
    for arguments in (
        ["init", str(tmp_path / "new"), "--images", str(photographs[0].parent)],
        ["status", "-C", str(trained.root)],
        ["export", "--list"],
        ["--help"],
    ):
        done = python(RUN, *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == "|", arguments


def test_a_refused_training_imports_no_torch(tmp_path, trained):
    done = python(RUN, "invert", "-C", str(trained.root), "--set", "seed=9")
    assert done.returncode == 3
    assert done.stdout.strip().splitlines()[-1] == "|"


def test_what_would_be_looked_at_and_measured_is_said_without_torch(trained):
    measuring = ["--set", "evaluate.dinov2=null", "--set", "evaluate.clip=toybox"]
    for arguments in (["evaluate", *measuring], ["attention"]):
        done = python(RUN, *arguments, "--dry-run", "-C", str(trained.root))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == "|", arguments


def test_looking_and_measuring_before_any_training_are_refused_without_torch(make_workspace):
    root = str(make_workspace().root)
    for command in ("evaluate", "attention"):
        done = python(RUN, command, "-C", root)
        assert done.returncode == 3, done.stderr
        assert "cictl invert" in done.stderr
        assert done.stdout.strip().splitlines()[-1] == "|"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status"], 3, "cictl init"),
        (["status", "-C", "nowhere"], 3, "does not exist"),
        (["frobnicate"], 2, "frobnicate"),
        (["generate", "a cat", "-C", "TRAINED"], 2, "does not mention S*"),
        (["invert", "-C", "TRAINED", "--set", "invert.steps=x"], 2, "invert.steps"),
        (["invert", "-C", "TRAINED", "--set", "data.resolution=72"], 3, "data.resolution: 64 -> 72"),
        (["generate", "S*", "-C", "TRAINED", "--set", "model.id=./nowhere"], 4, "neither a folder"),
        (["invert", "-C", "TRAINED"], 0, "already done"),
    ],
)
def test_exit_codes(tmp_path, trained, arguments, code, said):
    done = cictl(*[str(trained.root) if item == "TRAINED" else item for item in arguments], cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes them")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_error(trained, closed):
    command = f"{sys.executable} -m cictl status -C {trained.root} {closed}"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_results_and_errors_are_json_lines_if_asked_for(tmp_path, trained):
    done = cictl("status", "-C", str(trained.root), "--json", cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])["concept"] == "my-teapot"
    done = cictl("generate", "cat", "-C", str(trained.root), "--json", cwd=tmp_path)
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert done.returncode == 2
    assert [line["event"] for line in lines] == ["Error"] and "does not mention" in lines[0]["message"]


@pytest.mark.parametrize("command", [command.name for command in app.registered_commands])
def test_the_usage_of_a_command_is_plain(command):
    result = CliRunner().invoke(app, [str(command), "--help"], prog_name="cictl")
    usage = result.stdout.splitlines()[0]
    assert result.exit_code == 0 and usage.startswith(f"Usage: cictl {command} [OPTIONS]")
    assert "[[" not in usage and "]]" not in usage


@pytest.mark.parametrize(("typed", "offered"), [("cictl fin", ["finetune"]), ("cictl baseline d", ["dreambooth", "disenbooth"])])
def test_a_shell_completes_commands_and_methods(typed, offered):
    asked = {"_CICTL_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert CliRunner().invoke(app, [], env=asked, prog_name="cictl").output.split() == offered

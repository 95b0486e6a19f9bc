"""Output that cannot be written, and words that are no text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from tests.support import write_settings

FULL = Path("/dev/full")
NO_TEXT = "S* \udcff"  # how Python gives a byte of the command line that is not UTF-8


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "typed", [["status", "-C"], ["status", "--json", "-C"], ["generate", "a S*", "--json", "-C"], ["--help"]]
)
def test_output_that_goes_to_a_full_disk_is_said_on_stderr(trained, typed: list[str]):
    where = [str(trained.root)] if typed[-1] == "-C" else []
    with open(FULL, "w") as full:
        ended = subprocess.run([sys.executable, "-m", "cictl", *typed, *where], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 5 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-2].startswith("error: the output cannot be written: No space left")


@pytest.mark.parametrize("typed", [["generate", NO_TEXT], ["attention", NO_TEXT], ["generate", "S*", "--negative", NO_TEXT]])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_prompt_that_is_no_text_is_refused_before_a_model_reads_it(trained, typed: list[str], more: list[str]):
    result = CliRunner().invoke(app, [*typed, *more, "-C", str(trained.root)])
    assert result.exit_code == 2 and "not text in UTF-8" in result.stderr and "loading" not in result.stderr


def test_a_model_whose_name_is_no_text_makes_no_workspace(tmp_path):
    result = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--model", NO_TEXT])
    assert result.exit_code == 2 and not (tmp_path / "new").exists()


def test_a_setting_that_is_no_text_is_named(make_workspace):
    workspace = make_workspace()
    write_settings(workspace, {"evaluate.noun": "placeholder"})
    text = workspace.config_file.read_text("utf-8")
    workspace.config_file.write_text(text.replace("placeholder", '"\\uDCFF"'), "utf-8")
    result = CliRunner().invoke(app, ["check", "-C", str(workspace.root)])
    assert "evaluate.noun: is not text in UTF-8" in result.output

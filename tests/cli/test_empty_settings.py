"""A ci.yaml that a crash or an editor has left empty is no error, and what trains says what it means."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app

SAID = "ci.yaml sets nothing: all settings are defaults, and the base model is "
EMPTY = ["", "# invert:\n#   steps: 5\n", "{}\n"]


def typed(workspace, *arguments: str):
    return CliRunner().invoke(app, [*arguments, "-C", str(workspace.root)])


@pytest.mark.parametrize("text", EMPTY)
def test_a_check_warns_of_settings_that_are_empty(make_workspace, text: str):
    workspace = make_workspace()
    workspace.config_file.write_text(text)
    *_, report = map(json.loads, typed(workspace, "check", "--json").stdout.splitlines())
    [finding] = [one for one in report["findings"] if one["about"] == "config"]
    assert finding["level"] == "warning" and f"{SAID}stable-diffusion-v1-5/" in finding["message"]


@pytest.mark.parametrize(
    "command",
    [
        ["invert"], ["invert", "--dry-run"], ["finetune", "-q"], ["baseline", "textual-inversion"], ["compare"],
        ["compare", "--dry-run"],
    ],
)  # fmt: skip
def test_what_trains_warns_of_them_once_before_all_else(make_workspace, command: list[str]):
    workspace = make_workspace()
    assert SAID not in typed(workspace, *command, "--set", "model.device=cuda:9").stderr
    workspace.config_file.write_text(EMPTY[0])
    assert typed(workspace, *command, "--set", "model.device=cuda:9").stderr.count(SAID) == 1


def test_of_several_processes_one_warns(make_workspace, monkeypatch):
    workspace = make_workspace()
    workspace.config_file.write_text(EMPTY[0])
    for key, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    from cictl.processes import join

    join.cache_clear()
    assert SAID not in typed(workspace, "invert").stderr
    join.cache_clear()

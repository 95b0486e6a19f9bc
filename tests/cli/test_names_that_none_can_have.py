"""Names that are too long for any file, or that hold a NUL: each is refused as another wrong value of its kind is."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.files import from_home, is_file, is_folder, is_there
from tests.support import write_settings

LONG = "a" * 300


@pytest.mark.parametrize("name", [LONG, f"~{LONG}", "a\0b", "~\0b", f"{LONG}/b"])
def test_nothing_is_there(name: str):
    assert not any(ask(from_home(name)) for ask in (is_file, is_folder, is_there))


@pytest.mark.parametrize(
    ("slug", "typed"),
    [
        ("init-not-written", ["init", LONG]),
        ("init-not-written", ["demo", LONG]),
        ("photographs-not-copied", ["init", "new", "--images", LONG]),
        ("workspace-not-there", ["status", "-C", LONG]),
        ("model-not-found", ["generate", "a S*", "-C", "copy", "--set", f"model.id={LONG}"]),
        ("prompt-set-unknown", ["evaluate", "-C", "copy", "--prompts", LONG]),
        ("model-not-found", ["evaluate", "-C", "copy", "--set", f"evaluate.dinov2={LONG}"]),
        ("prompts-file-unreadable", ["generate", "-C", "copy", "--prompts", LONG]),
        ("export-not-written", ["export", "-C", "copy", "--format", "embedding", "--out", LONG]),
    ],
)
def test_a_name_that_is_too_long_is_an_error_of_its_argument(copy_of_trained, monkeypatch, slug: str, typed: list[str]):
    monkeypatch.chdir(copy_of_trained.root.parent)
    result = CliRunner().invoke(app, [*typed, "--json"])
    assert json.loads(result.stdout.splitlines()[-1])["slug"] == slug


@pytest.mark.parametrize(
    ("key", "command", "slug"),
    [("model.id", ["generate", "a S*"], "model-not-found"), ("evaluate.prompts", ["evaluate"], "prompt-set-unknown")],
)
def test_a_nul_in_a_setting_is_an_error_of_that_setting(copy_of_trained, key: str, command: list[str], slug: str):
    write_settings(copy_of_trained, {key: "~\0b"})
    result = CliRunner().invoke(app, [*command, "-C", str(copy_of_trained.root), "--json"])
    assert json.loads(result.stdout.splitlines()[-1])["slug"] == slug


def test_a_model_of_a_name_that_is_too_long_for_a_folder_makes_a_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init", "new", "--model", LONG]).exit_code == 0

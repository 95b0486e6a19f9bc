"""`cictl generate` and its like as they are typed without quotes, and the paths that they print with --json."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.workspace import Workspace


def cictl(workspace: Workspace, command: str, *arguments: str) -> tuple[int, str, str]:
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words, "-C", str(workspace.root), *arguments], prog_name="cictl")
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("typed", "next_one"),
    [
        ("cictl finetune", "cictl invert -C {}"),
        ("cictl generate cats", 'cictl generate -C {} "a photo of S* in the snow"'),
        ("cictl baseline dreambooth", "cictl baseline -C {} dreambooth --noun "),
    ],
)
def test_the_next_command_of_an_error_has_the_folder_that_was_typed(make_workspace, typed, next_one):
    workspace = make_workspace("my teapot")
    code, _, errors = cictl(workspace, typed)
    assert code and next_one.format(shlex.quote(str(workspace.root))) in errors


def test_every_command_of_a_workspace_is_known_to_the_errors():
    from cictl.cli.app import _MODULES
    from cictl.cli.session import _IN_A_WORKSPACE

    assert {*_IN_A_WORKSPACE.split("|"), "init", "demo"} == set(_MODULES)


@pytest.mark.parametrize(
    "typed",
    [
        "cictl generate S* in the snow",
        "cictl generate a photo of s*",
        "cictl generate Snow.png in the snow",  # what a shell may make of S*
        "cictl generate 'a sketch of S*' beach",
        "cictl attention a photo of S*",
    ],
)
def test_a_prompt_whose_quotes_are_missing_is_refused_with_a_command_that_works(copy_of_trained, tmp_path, typed):
    code, shown, errors = cictl(copy_of_trained, typed)
    assert code == 2 and not shown and "quotes" in errors
    [command] = re.findall(r'cictl (?:generate|attention) (?:-C \S+ )?"[^"]+"', errors)
    out = () if "attention" in command else ("-n", "1", "--set", "generate.steps=1", "--out", str(tmp_path))
    assert cictl(copy_of_trained, command, *out)[0] == 0


def test_words_for_the_untouched_base_are_drawn_each_with_a_warning(trained, tmp_path):
    quick = ("-n", "1", "--set", "generate.steps=1", "--stage", "base", "--out", str(tmp_path))
    code, shown, errors = cictl(trained, "cictl generate dog cat", *quick)
    assert code == 0 and len(shown.splitlines()) == 2
    assert 'in quotes they are one: cictl generate "dog cat"' in errors
    assert "quotes" not in cictl(trained, "cictl generate 'a dog' cat", *quick)[2]


def test_whole_prompts_are_drawn_without_a_word(trained, tmp_path):
    quick = ("-n", "1", "--set", "generate.steps=1", "--out", str(tmp_path))
    code, _, errors = cictl(trained, "cictl generate 'S*' 'a sketch of S*'", *quick)
    assert code == 0 and "quotes" not in errors


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["generate", "a photo of S*", "--grid"], "pictures"), (["generate", "a photo of S*", "--out", "out"], "pictures"),
        (["preview-aux"], "pictures"), (["export", "--format", "embedding"], "files"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("depth", ["", "here", "here/below"])
def test_with_json_a_path_is_the_same_while_it_is_made_and_in_the_end(copy_of_trained, monkeypatch, command, told, depth):
    """From the folder on that the command is typed in; from far below, a whole one."""
    place = copy_of_trained.root.parent / depth
    place.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(place)
    quick = ["-n", "1", "--set", "generate.steps=1"] if command[0] != "export" else []
    result = CliRunner().invoke(app, [*command, *quick, "-C", os.path.relpath(copy_of_trained.root), "--json"])
    assert result.exit_code == 0, result.stdout
    *events, outcome = map(json.loads, result.stdout.splitlines())
    made = [event["path"] for event in events if event["event"] in ("ImageSaved", "FileSaved")]
    assert made and made == [one["path"] for one in outcome[told]]
    for path in [*made, *(outcome[key] for key in ("grid", "sheet") if outcome.get(key))]:
        assert Path(path).exists() and Path(path).is_absolute() == (depth == "here/below" and "--out" not in command)

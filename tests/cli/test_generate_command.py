"""`cictl generate` and its like as they are typed without quotes."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.workspace import Workspace


def cictl(workspace: Workspace, command: str, *arguments: str) -> tuple[int, str, str]:
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words, "-C", str(workspace.root), *arguments], prog_name="cictl")
    return result.exit_code, result.stdout, result.stderr


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
    [command] = re.findall(r'cictl (?:generate|attention) "[^"]+"', errors)
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

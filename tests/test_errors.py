"""What an error's message may hold, whatever names it is made of."""

from __future__ import annotations

import json
import pickle
import signal

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.errors import CictlError, Interrupted, UsageError


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb.jpg", r"a\nb.jpg"),
        ("a\r\x1b[2Jb\x7f", r"a\r\x1b[2Jb\x7f"),
        ("a\u2028b\x85c", r"a\u2028b\x85c"),
        ("caf\udce9.png", r"caf\udce9.png"),
        ("\u202egpj.a", r"\u202egpj.a"),
        ("é 漢字\u3000\\n'\xa0", "é 漢字\u3000\\n'\xa0"),
    ],
)
def test_a_name_in_a_message_breaks_no_line_and_steers_no_terminal(name, shown):
    for error in (UsageError(f"{name}: no", "hint", slug="slug"), Interrupted(signal.SIGINT, f"{name}: no", "hint")):
        assert error.message == str(error) == f"{shown}: no"


def test_lines_that_are_meant_stand_each_on_its_own():
    error = CictlError(["these cannot be used:", "  a\nb.jpg: empty"], "hint", slug="slug")
    assert error.message.splitlines() == ["these cannot be used:", r"  a\nb.jpg: empty"]
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, str(again)) == (error.message, error.message)
    assert CictlError(error.message.splitlines(), "another", slug="slug").message == error.message


def test_a_line_break_in_the_names_of_a_workspace_and_of_its_photographs_is_shown_as_one(copy_of_trained):
    root = copy_of_trained.root.rename(copy_of_trained.root.with_name("of\ntwo\x1b[1m"))
    (root / "images" / "a\nb.jpg").write_bytes(b"")
    told = CliRunner().invoke(app, ["invert", "-C", str(root), "--restart"])
    assert told.exit_code == 2
    first, second = told.stderr.splitlines()[:2]
    assert first.startswith("error: 1 file in ") and r"of\ntwo\x1b[1m" in first and first.endswith(" cannot be used:")
    assert second == r"         a\nb.jpg: the file is empty; copy it again"
    said = json.loads(CliRunner().invoke(app, ["invert", "-C", str(root), "--restart", "--json"]).stdout.splitlines()[-1])
    assert said["slug"] == "photographs-unusable" and len(said["message"].splitlines()) == 2
    assert r"of\ntwo\x1b[1m" in said["message"]

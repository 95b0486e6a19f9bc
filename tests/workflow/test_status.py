"""`cictl status` beside a training in another process: it says so, and recommends nothing that would be refused."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.events import CheckpointSaved, PhaseStarted, Progress, StageCompleted
from cictl.workflow import baseline, export, finetune, generate, init, invert, preview_aux, status
from tests.support import silent

HOLDER = ".lock-holder.json"


def shown(workspace) -> str:
    result = CliRunner().invoke(app, ["status", "-C", str(workspace.root)])
    assert result.exit_code == 0, result.output
    return result.stdout


def note(workspace, host: str, command: str = "cictl invert") -> None:
    """What a process that was killed, or is on another machine, has left."""
    workspace.checkpoints.mkdir(exist_ok=True)
    holder = {"command": command, "pid": 7, "host": host, "since": "12:00:00"}
    (workspace.checkpoints / HOLDER).write_text(json.dumps(holder))


def look_at(workspace, kind: type, run, **arguments) -> list[tuple[status.Status, str]]:
    """The status at each event of a kind of a training, and as it is printed."""
    found = []

    def observe(event) -> None:
        if isinstance(event, kind):
            found.append((status.run(workspace), shown(workspace)))

    run(workspace, observe, **arguments)
    return found


def test_a_running_stage_1_is_said_with_its_progress_and_not_recommended(make_workspace):
    workspace = make_workspace(tracking__interval=2)
    looks = look_at(workspace, Progress, invert.run)
    assert [(report.running.step, report.running.steps) for report, _ in looks] == [(2, 8), (4, 8), (6, 8), (8, 8)]
    for report, text in looks:
        assert report.stages[0].state == "running" and report.running.stage == "invert"
        assert "running: `cictl invert` (process" in text and "of 8 steps are done, about 0:00:0" in text
        assert "cictl invert" not in text.partition("next: ")[2] and "Ctrl-C" in report.next
    after = status.run(workspace)
    assert after.running is None and after.next == "cictl finetune"


def test_a_restart_shows_nothing_of_the_training_before_it(copy_of_trained):
    ((report, text),) = look_at(
        copy_of_trained, PhaseStarted, lambda *given, **more: invert.run(*given, restart=True, **more), overrides={"seed": 5}
    )[:1]
    assert (report.running.step, report.running.steps) == (0, 0) and "not at its first step yet" in text
    assert "Ctrl-C" in report.next


def test_one_that_goes_on_counts_the_steps_it_goes_on_from(copy_of_trained):
    more = {"invert.steps": 10}
    looks = look_at(copy_of_trained, PhaseStarted | CheckpointSaved, invert.run, overrides=more)
    assert {(report.running.step, report.running.steps) for report, _ in looks[:-1]} == {(0, 0)}
    assert [(report.running.step, report.running.steps) for report, _ in looks[-1:]] == [(10, 10)]
    looks = look_at(copy_of_trained, StageCompleted, finetune.run, restart=True)
    assert looks[0][0].running.stage == "finetune" and looks[0][0].stages[1].state == "running"


def test_a_running_method_is_listed_before_it_has_a_checkpoint(make_workspace):
    workspace, two = make_workspace(), {"textual_inversion.steps": 2}
    report, text = look_at(
        workspace, PhaseStarted, lambda place, observe: baseline.run(place, "textual-inversion", observe, overrides=two)
    )[0]
    assert [(one.stage, one.state) for one in report.methods] == [("textual-inversion", "running")]
    assert "Ctrl-C" in report.next and "running: `cictl baseline textual-inversion`" in text


def test_pictures_can_be_drawn_beside_a_training(copy_of_trained):
    with copy_of_trained.lock("cictl baseline dreambooth"):
        assert status.run(copy_of_trained).next.startswith("cictl generate")


def test_what_a_killed_one_left_is_no_training(make_workspace):
    workspace = make_workspace()
    note(workspace, socket.gethostname())
    assert status.run(workspace).running is None
    assert (workspace.checkpoints / HOLDER).exists()  # it has changed nothing
    assert status.run(workspace).next == "cictl invert"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"command": "cictl invert"}', '{"command": "x", "pid": "?", "host": "", "since": ""}']
)
def test_a_note_that_cannot_be_read_hides_no_training(make_workspace, text):
    workspace = make_workspace()
    with workspace.lock("cictl invert"):
        (workspace.checkpoints / HOLDER).write_text(text)
        assert "running: another cictl process" in shown(workspace)
        assert "Ctrl-C" in status.run(workspace).next
    note(workspace, "")
    (workspace.checkpoints / HOLDER).write_text(text)
    assert status.run(workspace).running is None


def test_one_on_another_machine_whose_lock_is_not_seen_may_be_running(make_workspace):
    workspace = make_workspace()
    note(workspace, "node7")
    report, text = status.run(workspace), shown(workspace)
    assert not report.running.certain and report.next == "cictl invert"
    assert "perhaps running: `cictl invert` (process 7 on node7, since 12:00:00)" in text
    assert "only if `cictl invert` (process 7 on node7, since 12:00:00) has ended" in report.problem
    assert report.stages[0].state == "not started"


def test_a_lock_that_may_not_be_opened_is_doubt_and_no_error(make_workspace, monkeypatch):
    workspace = make_workspace()
    note(workspace, socket.gethostname())

    def refuse(self, *arguments, **options) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert "perhaps running: `cictl invert`" in shown(workspace)


def test_to_look_keeps_nobody_from_training(make_workspace):
    workspace = make_workspace()
    note(workspace, socket.gethostname())
    for _ in range(3):
        status.run(workspace)
        with workspace.lock("cictl invert"):
            assert status.run(workspace).running.certain


def test_status_of_a_training_says_the_same_in_json(make_workspace):
    workspace = make_workspace()
    with workspace.lock("cictl finetune"):
        result = CliRunner().invoke(app, ["status", "-C", str(workspace.root), "--json"])
    running = json.loads(result.stdout)["running"]
    assert (running["stage"], running["certain"], running["step"]) == ("finetune", True, 0)
    invert.run(workspace, silent)
    assert json.loads(CliRunner().invoke(app, ["status", "-C", str(workspace.root), "--json"]).stdout)["running"] is None


def test_what_an_export_has_half_written_is_no_export_of_any_training(copy_of_trained):
    export.run(copy_of_trained, silent)
    seen = status.run(copy_of_trained)
    exported = copy_of_trained.outputs / "export"
    half = shutil.copytree(exported, exported / ".exporting-bundle-1")
    for path in (*half.rglob("*.safetensors"), *exported.glob("*.safetensors")):
        hidden = path.with_name(f".{path.name}")
        hidden.write_bytes(path.read_bytes().replace(b"finetune", b"somewhat"))
    assert seen.exports and seen.export_origins == ["finetune after 6 steps"]
    assert status.run(copy_of_trained) == seen


def test_without_photographs_it_says_what_to_type_from_where_one_is(tmp_path, monkeypatch):
    workspace, _ = init.run(tmp_path / "one"), init.run(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    assert status.run(workspace).next == "put three to six photographs into one/images, then: cd one && cictl invert"
    monkeypatch.chdir(workspace.root)
    assert status.run(workspace).next == "put three to six photographs into images, then: cictl invert"


def test_sheets_are_no_pictures(copy_of_trained):
    quick = {"generate.steps": 1, "generate.count": 1}
    preview_aux.run(copy_of_trained, silent, overrides=quick)
    assert status.run(copy_of_trained).pictures == 0 and status.run(copy_of_trained).next.startswith("cictl generate")
    generate.run(copy_of_trained, ["S* seed 7", "S*"], silent, overrides={**quick, "seed": 12345}, grid=True, metadata=False)
    assert len(list(copy_of_trained.outputs.glob("*.png"))) == 4  # with two sheets
    assert status.run(copy_of_trained).pictures == 2

"""A short form of ``python -m benchmarks.torture``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.torture import __main__ as command
from benchmarks.torture import crash_points, disk, flips, fuzz, kills, parts, processes
from benchmarks.torture.workspaces import Yard


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    return Yard.build(tmp_path_factory.mktemp("yard"))


def test_a_checkpoint_survives_a_death_at_every_call():
    outcome = crash_points.torture()
    assert outcome.calls > 15
    assert outcome.deaths == 6 * outcome.calls
    assert outcome.lost == []


def test_a_naive_writer_does_not():
    """Otherwise the torture would prove nothing."""
    assert crash_points.torture(crash_points.naive).lost


def test_a_full_disk_keeps_the_last_checkpoint_and_says_how_much_is_needed():
    outcome = disk.torture()
    assert outcome.calls > 10
    assert outcome.wrong == []


def test_killed_trainings_go_on_to_the_same_bits(yard: Yard):
    outcome = kills.torture(yard, 8)
    assert outcome.kills == 8
    assert outcome.stuck + outcome.differing == []


def test_a_flipped_bit_is_noticed(yard: Yard):
    outcome = flips.torture(yard, 30)
    assert outcome.checkpoints > outcome.exports > 0
    assert outcome.missed == []


def test_of_several_trainings_at_once_one_wins(yard: Yard):
    assert processes.races(yard, 2).wrong == []


def test_signals_have_their_codes_and_lose_nothing(yard: Yard):
    assert processes.signals(yard, 4).wrong == []


def test_odd_configurations_are_used_or_refused(tmp_path: Path):
    outcome = fuzz.configurations(tmp_path, 150)
    assert outcome.wrong == []
    assert outcome.codes[2] > 50


def test_broken_pictures_are_used_or_refused(tmp_path: Path):
    outcome = fuzz.pictures(tmp_path, 100)
    assert outcome.wrong == []
    assert outcome.codes[2] > 20


# -- the command ----------------------------------------------------------------------------------------


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["torture", *arguments])
    with pytest.raises(SystemExit) as ending:
        command.main()
    return int(ending.value.code or 0)


def test_the_command_keeps_what_is_done_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert run_command(monkeypatch, "--work", str(tmp_path), "--only", "configurations", "--count", "20") == 0
    [one] = json.loads((tmp_path / "configurations.json").read_text())["rounds"]
    assert (one["count"], one["seed"], one["wrong"]) == (20, 0, [])
    assert one["figures"]["used (exit 0)"] + one["figures"]["refused (exit 2)"] >= 20
    assert run_command(monkeypatch, "--work", str(tmp_path), "--only", "configurations", "--count", "30") == 0
    rounds = json.loads((tmp_path / "configurations.json").read_text())["rounds"]
    assert rounds[0] == one
    assert [(later["count"], later["seed"]) for later in rounds[1:]] == [(10, 1)]
    before = (tmp_path / "table.md").read_text()
    monkeypatch.setattr("subprocess.run", None)
    assert run_command(monkeypatch, "--work", str(tmp_path), "--only", "configurations", "--count", "30") == 0
    assert (tmp_path / "table.md").read_text() == before


def test_the_table_adds_the_rounds_up_and_what_was_wrong_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    rounds = [
        {"count": 5, "seed": 0, "seconds": 60.0, "figures": {"kills": 5, parts.LARGEST: 300}, "wrong": []},
        {"count": 2, "seed": 1, "seconds": 30.0, "figures": {"kills": 2, parts.LARGEST: 200}, "wrong": ["a bit is lost"]},
    ]
    (tmp_path / "kills.json").write_text(json.dumps({"rounds": rounds}))
    assert run_command(monkeypatch, "--work", str(tmp_path), "--only", "kills", "--count", "7") == 1
    printed = capsys.readouterr().out
    assert "| 7 kills, 300 MiB of memory at most | 1 | 1.5 |" in printed
    assert "a bit is lost" in printed

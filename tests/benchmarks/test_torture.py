"""A short form of ``python -m benchmarks.torture``."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torture import crash_points, disk, flips, fuzz, kills, processes
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

"""Numbers, paths, sparklines, and the arithmetic of what is left."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from rich.cells import cell_len

from cictl.events import ImageSaved, Memory, PicturesPlanned, SamplingStep
from cictl.ui import draw, formats
from cictl.ui.glyphs import ASCII, UNICODE, glyphs_for, printable
from cictl.ui.sparkline import History, sparkline
from cictl.ui.state import Sampling, Training

from .support import CPU, CUDA, GIB, progress, started


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.duration(39.2), "0:00:39"),
        (formats.duration(3661), "1:01:01"),
        (formats.duration(-1), "0:00:00"),
        (formats.rough_duration(40), "40 s"),
        (formats.rough_duration(89 * 60), "89 min"),
        (formats.rough_duration(29.5 * 3600), "29.5 h"),
        (formats.rate(0.14), "7.1 it/s"),
        (formats.rate(1.4), "1.40 s/it"),
        (formats.rate(0.0), "-- s/it"),
        (formats.loss(0.1234), "0.1234"),
        (formats.loss(1.02), "1.020"),
        (formats.loss(1234.5), "1234"),
        (formats.loss(2.1e-5), "2.1e-05"),
        (formats.loss(0.0), "0.0000"),
        (formats.loss(math.nan), "nan"),
        (formats.percent(399, 400), "99%"),
        (formats.percent(0, 0), "100%"),
        (formats.memory_use(CPU), "1.1/23.4 GiB"),
        (formats.memory_use(Memory("cuda", 312 * 2**20, 0, 80 * GIB)), "312 MiB/80.0 GiB"),
        (formats.memory_use(Memory("cpu", 312 * 2**20, 0, 0)), "312 MiB"),
        (formats.memory_label(Memory("mps", 0, 0, 0)), "VRAM"),
        (formats.clip_path("/a/b/c.png", 20), "/a/b/c.png"),
        (formats.clip_path("/home/someone/pictures/c.png", 16), "…/pictures/c.png"),
        (formats.clip_path("/home/someone/pictures/c.png", 15), "…/c.png"),
        (formats.clip_path("averylongfilename.png", 8), "…ame.png"),
        (formats.clip("漢字漢字", 5), "漢字…"),
    ],
)
def test_formats(shown: str, expected: str) -> None:
    assert shown == expected


def test_meter_marks_use_and_peak() -> None:
    memory = Memory("cuda", 25 * GIB, 50 * GIB, 100 * GIB)
    tail = "  25.0/100 GiB  peak 50.0 GiB"
    assert draw.meter(memory, 20 + len(tail), UNICODE).plain == "█████░░░░░┃░░░░░░░░░" + tail
    for width in range(10, 80):
        assert draw.meter(memory, width, UNICODE).cell_len <= max(width, 14)


def test_meter_warns_by_its_colour_before_memory_is_full() -> None:
    def colour(used: int) -> object:
        return draw.meter(Memory("cuda", used * GIB, used * GIB, 100 * GIB), 60, UNICODE).spans[0].style

    assert [colour(used) for used in (10, 50, 85, 99)] == ["green", "green", "yellow", "red"]


def test_meter_without_a_total_is_a_number() -> None:
    assert draw.meter(Memory("cpu", GIB, GIB, 0), 40, UNICODE).plain.startswith("1.0 GiB")


def test_glyphs_fall_back_where_the_encoding_cannot() -> None:
    assert glyphs_for("utf-8") is UNICODE
    assert glyphs_for("ascii") is ASCII
    assert glyphs_for("latin-1") is ASCII
    assert glyphs_for("no such encoding") is ASCII
    assert glyphs_for(None) is ASCII


def test_printable_removes_what_moves_the_cursor() -> None:
    assert printable("a\x1b[2Jb\nc\td\u202ee\udcff") == "a [2Jb c d e?"
    assert printable("Käse", "ascii") == "K?se"


def test_sparkline_goes_from_lowest_to_highest() -> None:
    assert sparkline([0, 1, 2, 3], "abcd") == "abcd"
    assert sparkline([2.0, 2.0], "abcd") == "aa"
    assert sparkline([], "abcd") == ""


def test_history_is_bounded_and_keeps_the_mean() -> None:
    history = History(capacity=64)
    for value in range(10_000):
        history.add(float(value))
    history.add(math.nan)
    assert len(history) < 64
    means = history.means(10)
    assert len(means) == 10
    assert means == sorted(means)
    assert 0 < means[0] < 600
    assert 9000 < means[-1] < 10_000
    assert history.means(0) == []


def test_eta_of_training_counts_down_and_smooths() -> None:
    state = Training.from_start(started(400, first_step=100), now=0.0)
    assert state.eta(0.0) is None
    state.progressed(progress(120, seconds=0.14), now=10.0)
    assert state.eta(10.0) == pytest.approx(39.2)
    assert state.eta(20.0) == pytest.approx(29.2)
    assert state.eta(1000.0) == 0.0
    state.progressed(progress(200, seconds=0.24), now=30.0)
    assert state.eta(30.0) == pytest.approx(200 * (0.7 * 0.14 + 0.3 * 0.24))


def test_eta_of_pictures_waits_until_the_size_of_a_round_is_known() -> None:
    now, state = 0.0, Sampling.from_plan(PicturesPlanned(6, 0), 0.0)
    for step in range(1, 11):
        now += 1.0
        state.sampled(SamplingStep(step, 10, CUDA), now)
        assert state.eta(now) is None
    for index in (1, 2):
        state.saved(ImageSaved(index, 6, Path("x.png")), now)
    now += 1.0
    state.sampled(SamplingStep(1, 10, CUDA), now)
    eta = state.eta(now)
    assert eta is not None
    assert eta == pytest.approx(19, rel=0.15)


def test_eta_of_a_single_picture_is_known_at_once() -> None:
    state = Sampling.from_plan(PicturesPlanned(4, 3), 0.0)
    state.sampled(SamplingStep(1, 10, CUDA), 1.0)
    state.sampled(SamplingStep(2, 10, CUDA), 2.0)
    assert state.eta(2.0) == pytest.approx(8.0)
    state.saved(ImageSaved(4, 4, Path("x.png")), 12.0)
    assert state.elapsed(100.0) == 12.0


def test_pictures_that_are_all_there_are_done() -> None:
    assert Sampling.from_plan(PicturesPlanned(4, 4), 5.0).finished_at == 5.0


def test_bars_are_as_wide_as_asked() -> None:
    for done in range(11):
        assert draw.bar(done, 10, 33, UNICODE, "cyan").cell_len == 33
        assert cell_len(draw.counted_bar(done, 10, 50, ASCII, "cyan").plain) == 50

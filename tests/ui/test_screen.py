"""The panel: what it says, and that it fits."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    Event,
    FileSaved,
    ImageSaved,
    Note,
    PhaseStarted,
    PicturesPlanned,
    PreviewSaved,
    PutAside,
    SamplingStep,
    StageCompleted,
    StepCompleted,
    Warned,
)
from cictl.ui.glyphs import ASCII, UNICODE
from cictl.ui.screen import Screen

from .support import CPU, CUDA, LONG, NASTY, Clock, draw, progress, started

TRAINING: list[Event] = [
    Note(NASTY * 5),
    Warned(NASTY * 5),
    PhaseStarted(NASTY * 5),
    started(stage=NASTY),
    *(StepCompleted(step, {"diffusion": 1 / step, "a [red]very[/] long name of a loss": step}) for step in range(1, 90)),
    progress(90),
    CheckpointSaved(50, LONG),
    PreviewSaved(60, LONG),
    FileSaved(LONG, 123456, True),
    PhaseStarted(NASTY * 5),
]
FETCHING: list[Event] = [DownloadProgress(NASTY * 3, NASTY, 0, 2**32), DownloadProgress(NASTY * 3, NASTY, 2**30, 2**32)]
SAMPLING: list[Event] = [
    PicturesPlanned(8, 2),
    SamplingStep(3, 50, CPU),
    ImageSaved(3, 8, LONG, CPU),
    SamplingStep(1, 50, CPU),
]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII], ids=["unicode", "ascii"])
@pytest.mark.parametrize("events", [TRAINING, SAMPLING, TRAINING + SAMPLING], ids=["training", "pictures", "both"])
def test_no_line_is_wider_than_the_terminal(events: list[Event], glyphs: object, width: int) -> None:
    drawn = draw(*events, width=width, title=NASTY * 5, glyphs=glyphs)  # type: ignore[arg-type]
    assert max(map(cell_len, drawn.splitlines())) <= width
    panel = [line for line in drawn.splitlines() if line[:1] in "│|╭╰+"]
    assert len({cell_len(line) for line in panel}) == 1


def test_what_is_to_be_typed_stays_one_line_however_narrow_the_terminal() -> None:
    command = " && ".join([f"mv '{LONG}' archive"] * 3)
    drawn = draw(started(), PutAside(LONG, command), progress(1), width=40).splitlines()
    assert command in drawn
    assert max(cell_len(line) for line in drawn if line != command) <= 40


def test_text_from_outside_is_neither_markup_nor_escape_sequence() -> None:
    drawn = draw(Note(NASTY), Warned("[/] [red]x"), started(stage="[bold]s[/]"), title=NASTY, width=120)
    assert "dog [red]S*[/] [/nope]" in drawn
    assert "warning: [/] [red]x" in drawn
    assert "[bold]s[/] · dog [red]S*[/]" in drawn
    assert "\x1b[31m" not in drawn


def test_training_shows_pace_losses_memory_and_files() -> None:
    clock = Clock()
    screen = Screen("dog", glyphs=UNICODE, clock=clock)
    screen.take(started())
    clock.now += 17
    for event in (
        progress(120),
        CheckpointSaved(100, Path("/x/step-000100")),
        PreviewSaved(100, Path("/x/p.png")),
    ):
        assert screen.take(event) == []
    drawn = _render(screen)
    for part in (
        "invert · dog", "120/400   30%", "7.1 it/s · elapsed 0:00:17 · ETA 0:00:39", "diffusion     0.1234",
        "contrastive    1.020", "VRAM", "11.0/80.0 GiB  peak 14.0 GiB", "step 100  step-000100", "/x/p.png",
        "cuda:0 · bfloat16 · 768 parameters",
    ):  # fmt: skip
        assert part in drawn
    clock.now += 9
    assert "ETA 0:00:30" in _render(screen)


def test_a_time_is_whole_or_left_out() -> None:
    clock = Clock()
    screen = Screen("dog", glyphs=UNICODE, clock=clock)
    screen.take(started())
    clock.now += 17
    screen.take(progress(120))
    assert "│ elapsed 0:00:17 · ETA 0:00:39 " in _render(screen, width=40)


def test_memory_of_the_process_is_called_ram_and_some_use_is_never_none() -> None:
    drawn = draw(started(), progress(1, memory=CPU))
    assert "VRAM" not in drawn
    assert "RAM          █" in drawn
    assert "1.1/23.4 GiB" in drawn


def test_a_phase_spins_and_then_leaves_a_line() -> None:
    clock = Clock()
    screen = Screen("dog", glyphs=UNICODE, clock=clock)
    screen.take(PhaseStarted("loading [b]"))
    clock.now += 3
    assert "loading [b]  0:00:03" in _render(screen)
    (line,) = screen.take(started())
    assert _render(line).strip() == "✓ loading [b]  0:00:03"
    assert screen.take(PhaseStarted("a preview")) == []
    assert screen.take(progress(1)) == [], "a phase within training leaves no line"


def test_a_stage_that_is_over_makes_way_for_the_next_with_a_line() -> None:
    drawn = draw(started(), progress(400), StageCompleted("invert", 400, 57.0), started(stage="tune"), width=120)
    assert "✓ invert: 400 steps in 0:00:57  diffusion 0.1234  contrastive 1.020" in drawn
    assert "tune · dog" in drawn
    assert "checkpoint" not in drawn


def test_previews_do_not_replace_training() -> None:
    drawn = draw(started(), progress(90), PicturesPlanned(1, 0), SamplingStep(5, 20, CUDA))
    assert "90/400" in drawn
    assert " 5/20" in drawn
    assert "denoising" not in draw(started(), SamplingStep(5, 20, CUDA), StepCompleted(91, {"diffusion": 1.0}))


def test_the_last_state_says_how_it_ended() -> None:
    screen = Screen("dog", glyphs=UNICODE, clock=Clock())
    screen.take(started())
    screen.take(progress(90))
    screen.close("stopped")
    drawn = _render(screen)
    assert "(stopped)" in drawn
    assert "ETA" not in drawn
    finished = draw(started(), progress(400), StageCompleted("invert", 400, 57.0))
    assert "elapsed 0:00:57 · done" in finished
    early = draw(started(), progress(180), StageCompleted("invert", 180, 57.0))
    assert "180/400" in early and "elapsed 0:00:57 · ended early" in early


def test_nothing_to_show_takes_no_room() -> None:
    assert draw() == ""


def test_ascii_panel_is_ascii() -> None:
    paper = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen = Screen("Käse", glyphs=ASCII, encoding="ascii", clock=Clock())
    screen.take(started())
    screen.take(progress(90))
    Console(width=60, file=paper, force_terminal=True, color_system=None).print(screen)
    paper.seek(0)
    assert "invert - K?se" in paper.read()


def test_no_color_yields_no_colour_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    paper = io.StringIO()
    console = Console(width=60, file=paper, force_terminal=True)
    screen = Screen("dog", glyphs=UNICODE, clock=Clock())
    for event in TRAINING:
        for line in screen.take(event):
            console.print(line)
    console.print(screen)
    assert not any(f"\x1b[{code}" in paper.getvalue() for code in ("3", "4", "9", "10", "1;3"))


def _render(renderable: object, width: int = 60) -> str:
    paper = io.StringIO()
    Console(width=width, file=paper, force_terminal=True, color_system=None).print(renderable)
    return paper.getvalue()


def test_a_download_has_a_bar_with_the_bytes_of_the_total_and_leaves_a_line() -> None:
    clock = Clock()
    screen = Screen("dog", glyphs=UNICODE, clock=clock)
    screen.take(DownloadProgress("owner/tiny", "unet/x.safetensors", 0, 2**32))
    clock.now += 100
    screen.take(DownloadProgress("owner/tiny", "unet/x.safetensors", 2**30, 2**32))
    drawn = _render(screen)
    assert "fetching owner/tiny  unet/x.safetensors" in drawn
    assert "━" in drawn and "1.0/4.0 GiB  25%  10 MiB/s  ETA 0:05:00" in drawn
    clock.now += 300
    (line,) = screen.take(DownloadProgress("owner/tiny", "unet/x.safetensors", 2**32, 2**32))
    assert "fetching" not in _render(screen)
    paper = io.StringIO()
    Console(width=80, file=paper).print(line)
    assert "fetched owner/tiny  4.0 GiB  0:06:40" in paper.getvalue()


@pytest.mark.parametrize("width", [30, 60, 120])
def test_a_download_fits_alone_and_within_the_panel(width: int) -> None:
    for events in (FETCHING, SAMPLING + FETCHING):
        assert max(map(cell_len, draw(*events, width=width).splitlines())) <= width


def test_what_is_said_after_the_last_picture_stands_below_its_line() -> None:
    """`compare` says what it draws next, which is not what was drawn before."""
    clock = Clock()
    screen = Screen("dog", glyphs=UNICODE, clock=clock)
    screen.take(PicturesPlanned(2, 0))
    screen.take(ImageSaved(1, 2, LONG, CPU))
    assert [_render(line).strip() for line in screen.take(Note("in between"))] == ["in between"]
    screen.take(ImageSaved(2, 2, LONG, CPU))
    said = [_render(line).strip() for line in screen.take(Note("drawing: DreamBooth"))]
    assert said == ["✓ 2/2 pictures in 0:00:00", "drawing: DreamBooth"]

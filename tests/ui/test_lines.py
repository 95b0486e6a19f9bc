"""Plain lines and JSON lines, and which of the two is chosen."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import signal
import time
from pathlib import Path

import pytest

from cictl import stops
from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    FileSaved,
    ImageSaved,
    Note,
    PhaseStarted,
    PicturesPlanned,
    Progress,
    PutAside,
    SamplingStep,
    StageCompleted,
    StepCompleted,
    Warned,
)
from cictl.stops import STOPPING
from cictl.ui.display import Mode, choose_mode, show
from cictl.ui.json_lines import JsonLines
from cictl.ui.live import live_panel
from cictl.ui.plain import PlainLines
from cictl.ui.terminal import cursor_restored

from .support import CPU, CUDA, NASTY, Clock, progress, started


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(seconds_per_step: float, steps: int, every: int = 1, verbose: int = 0) -> list[str]:
    clock, stream = Clock(), io.StringIO()
    observe = PlainLines(stream, verbose=verbose, clock=clock)
    observe(started(steps))
    for step in range(1, steps + 1):
        clock.now += seconds_per_step
        observe(StepCompleted(step, {"diffusion": 0.1}))
        if step % every == 0:
            observe(progress(step, steps, seconds_per_step, CPU))
    observe(StageCompleted("invert", steps, seconds_per_step * steps))
    return stream.getvalue().splitlines()


def test_plain_line_says_all() -> None:
    clock, stream = Clock(), io.StringIO()
    observe = PlainLines(stream, clock=clock)
    observe(started())
    observe(progress(120, memory=CPU))
    assert stream.getvalue().splitlines()[-1] == (
        "invert 120/400   30%  diffusion 0.1234  contrastive 1.020  0.14 s/step  ETA 0:00:39  RAM 1.1/23.4 GiB"
    )


def test_a_fast_run_has_few_lines_and_the_last_step_among_them() -> None:
    lines = run(0.001, 1000)
    assert 20 <= len(lines) <= 25
    assert "1000/1000  100%" in lines[-2]


def test_a_slow_run_has_a_line_every_ten_seconds_at_first() -> None:
    lines = run(2.0, 100)
    assert 20 <= len(lines) <= 25
    assert lines[-1] == "invert: 100 steps done in 0:03:20"
    lines = run(30.0, 10)
    assert len(lines) == 12


def test_a_night_is_not_flooded() -> None:
    assert len(run(1.0, 10 * 3600)) < 700


def test_plain_lines_of_everything_else() -> None:
    stream = io.StringIO()
    observe = PlainLines(stream, clock=Clock())
    for event in (
        Note(NASTY),
        Warned("[red] careful"),
        PhaseStarted("loading"),
        CheckpointSaved(5, Path("/x/c")),
        PicturesPlanned(2, 1),
        SamplingStep(1, 50, CPU),
        ImageSaved(2, 2, Path("/x/[red].png")),
        FileSaved(Path("/x/y"), 2048, True),
    ):
        observe(event)
    assert stream.getvalue().splitlines() == [
        "dog [red]S*[/] [/nope]  [31m",
        "second line",
        "warning: [red] careful",
        "loading ...",
        "2 pictures, 1 there already",
        "picture 2/2  /x/[red].png",
        "saved /x/y  2 KiB, verified",
    ]


def test_checkpoints_are_for_the_verbose() -> None:
    stream = io.StringIO()
    PlainLines(stream, verbose=1, clock=Clock())(CheckpointSaved(5, Path("/x/c")))
    assert stream.getvalue() == "checkpoint of step 5  /x/c\n"


def test_slow_denoising_says_that_it_is_alive() -> None:
    clock, stream = Clock(), io.StringIO()
    observe = PlainLines(stream, clock=clock)
    observe(PicturesPlanned(1, 0))
    for step in range(1, 51):
        clock.now += 1.0
        observe(SamplingStep(step, 50, CPU))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[1] == "0/1 pictures  denoising 10/50  ETA 0:00:40  RAM 1.1/23.4 GiB"


def test_json_lines_parse_and_leave_single_steps_out() -> None:
    stream = io.StringIO()
    observe = JsonLines(stream)
    observe(StepCompleted(1, {"diffusion": 1.0}))
    observe(SamplingStep(1, 50, CUDA))
    observe(Progress(1, 2, {"diffusion": math.nan, "contrastive": 1.0}, 0.1, CUDA))
    observe(CheckpointSaved(1, Path("/x/\udcff")))
    observe(FileSaved(Path("/x"), 3))
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "Progress"
    assert first["losses"] == {"diffusion": None, "contrastive": 1.0}
    assert first["memory"]["device"] == "cuda:0"
    assert second["event"] == "CheckpointSaved"
    assert third["size"] == 3
    assert "NaN" not in stream.getvalue()


@pytest.mark.parametrize(
    ("terminal", "term", "json_asked", "quiet", "expected"),
    [
        (True, "xterm", False, False, Mode.live),
        (True, "dumb", False, False, Mode.plain),
        (False, "xterm", False, False, Mode.plain),
        (True, "xterm", True, True, Mode.json),
        (True, "xterm", False, True, Mode.quiet),
    ],
)
def test_choose_mode(
    terminal: bool, term: str, json_asked: bool, quiet: bool, expected: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr", Terminal() if terminal else io.StringIO())
    assert choose_mode(json=json_asked, quiet=quiet) is expected


def test_each_mode_writes_to_its_stream(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = {}
    for mode in (Mode.plain, Mode.json, Mode.quiet):
        with show(mode, title="dog") as observe:
            observe(Note("a note"))
            observe(Warned("a warning"))
            observe(PutAside(Path("archive/one"), "mv one other"))
        outputs[mode] = tuple(capsys.readouterr())
    must_be_known = "warning: a warning\nthe training until now is in archive/one; to have it back:\nmv one other\n"
    assert outputs[Mode.plain] == ("", f"a note\n{must_be_known}")
    assert outputs[Mode.json][1] == ""
    assert len(outputs[Mode.json][0].splitlines()) == 3
    assert outputs[Mode.quiet] == ("", must_be_known)


def test_the_panel_restores_the_cursor_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stderr)
    with pytest.raises(KeyboardInterrupt), live_panel("dog") as observe:
        observe(started())
        raise KeyboardInterrupt
    assert stderr.getvalue().rindex("\x1b[?25h") > stderr.getvalue().rindex("\x1b[?25l")
    assert "(stopped)" in stderr.getvalue()


def test_signal_handlers_come_and_go() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with cursor_restored(2):
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with cursor_restored(2):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_terminal_that_closes_ends_what_nobody_stops_by_its_signal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        signal.alarm(60)  # whatever goes wrong
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            with cursor_restored(2):
                os.write(2, b"begun")
                time.sleep(60)
        finally:
            os._exit(0)  # an error of the terminal's, say
    assert b"begun" in os.read(terminal, 99)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGHUP


@pytest.mark.parametrize(("mode", "said"), [(Mode.plain, f"{STOPPING}\n"), (Mode.json, ""), (Mode.quiet, "")])
def test_a_signal_is_answered_at_once_where_lines_are_read(capfd: pytest.CaptureFixture[str], mode: Mode, said: str) -> None:
    with show(mode, title="dog"):
        stops.ask()
    assert capfd.readouterr() == ("", said)


def test_a_download_says_its_total_first_and_then_how_far_it_is() -> None:
    clock, stream = Clock(), io.StringIO()
    observe = PlainLines(stream, clock=clock)
    gib = 2**30
    for second in range(0, 401, 4):
        clock.now += 4
        observe(DownloadProgress("owner/tiny", "unet/x.safetensors", second * gib // 100, 4 * gib))
    clock.now += 1
    observe(DownloadProgress("owner/clip", "model.safetensors", gib, 2 * gib))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "fetching owner/tiny  0 B/4.0 GiB  0%  unet/x.safetensors"
    assert lines[1] == "fetching owner/tiny  123 MiB/4.0 GiB  2%  10 MiB/s  ETA 0:06:28  unet/x.safetensors"
    assert lines[-2] == "fetching owner/tiny  4.0/4.0 GiB  100%  10 MiB/s  unet/x.safetensors"
    assert lines[-1] == "fetching owner/clip  1.0/2.0 GiB  50%  model.safetensors"
    assert 20 <= len(lines) <= 50


def test_a_download_that_goes_on_is_as_fast_as_what_comes_and_not_as_what_was_there() -> None:
    clock, stream = Clock(), io.StringIO()
    observe = PlainLines(stream, clock=clock)
    for mebibytes in (2048, 2248):
        observe(DownloadProgress("owner/tiny", "unet/x.safetensors", mebibytes * 2**20, 4096 * 2**20))
        clock.now += 20
    observe(DownloadProgress("owner/tiny", "unet/x.safetensors", 2448 * 2**20, 4096 * 2**20))
    assert "  10 MiB/s  ETA 0:02:45  " in stream.getvalue().splitlines()[-1]

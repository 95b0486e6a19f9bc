"""Events, a clock that stands until it is told, and a way to draw on paper."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cictl.events import Event, Memory, Progress, StageStarted
from cictl.ui.glyphs import UNICODE, Glyphs
from cictl.ui.live import print_lines
from cictl.ui.screen import Screen

GIB = 2**30
CUDA = Memory("cuda:0", 11 * GIB, 14 * GIB, 80 * GIB)
CPU = Memory("cpu", 1181116006, 2 * GIB, 25125558681)
NASTY = "dog [red]S*[/] [/nope] \x1b[31m\nsecond line"
LONG = Path("/home/someone/photographs/with a [bold]very[/] long name/" + "deeper/" * 20 + "step-000120.png")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def started(steps: int = 400, first_step: int = 0, stage: str = "invert") -> StageStarted:
    return StageStarted(stage, first_step, steps, "cuda:0", "bfloat16", 768)


def progress(step: int, steps: int = 400, seconds: float = 0.14, memory: Memory = CUDA) -> Progress:
    return Progress(step, steps, {"diffusion": 0.1234, "contrastive": 1.02}, seconds, memory)


def draw(*events: Event, width: int = 60, title: str = "dog", glyphs: Glyphs = UNICODE, clock: Clock | None = None) -> str:
    """All that a terminal would hold after ``events``: lines above the panel, then the panel."""
    screen = Screen(title, glyphs=glyphs, clock=clock or Clock())
    paper = io.StringIO()
    console = Console(width=width, file=paper, force_terminal=True, color_system=None, markup=False)
    for event in events:
        print_lines(console, screen.take(event))
    console.print(screen)
    return paper.getvalue()

"""The live panel on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from cictl.events import Event, Observer
from cictl.stops import stops_told
from cictl.ui.console import live_console
from cictl.ui.glyphs import glyphs_for
from cictl.ui.panel import Outcome
from cictl.ui.screen import Screen
from cictl.ui.terminal import cursor_restored, show_cursor

_REFRESHES_PER_SECOND = 8


@contextmanager
def live_panel(title: str, *, verbose: int = 0) -> Iterator[Observer]:
    """Shows a panel below what is printed, and leaves its last state standing."""
    console = live_console()
    screen = Screen(title, glyphs=glyphs_for(console.encoding), encoding=console.encoding, verbose=verbose)

    def observe(event: Event) -> None:
        print_lines(console, screen.take(event))

    live = Live(
        screen,
        console=console,
        refresh_per_second=_REFRESHES_PER_SECOND,
        # Results printed into a pipe must not end up on the terminal.
        redirect_stdout=sys.stdout.isatty(),
    )
    descriptor = _descriptor(console)
    told = stops_told(asked=screen.stopping_soon, leaving=lambda number: show_cursor(descriptor))
    with cursor_restored(descriptor), told, live:
        outcome: Outcome = "stopped"
        try:
            yield observe
            outcome = "finished"
        finally:
            print_lines(console, screen.close(outcome))


def print_lines(console: Console, lines: Iterable[RenderableType]) -> None:
    """Print what belongs above the panel; what must not be wrapped is left to the terminal, so that it is copied as one line."""
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, Text) and bool(line.no_wrap))


def _descriptor(console: Console) -> int:
    try:
        return console.file.fileno()
    except OSError:
        return sys.__stderr__.fileno() if sys.__stderr__ else 2

"""How progress is shown: chosen once per command, then used as an observer of events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

from cictl.events import Event, Observer, PutAside, Warned
from cictl.stops import STOPPING, stops_told
from cictl.ui.json_lines import JsonLines
from cictl.ui.live import live_panel
from cictl.ui.plain import PlainLines


class Mode(StrEnum):
    """``live`` is a panel, ``plain`` are lines, ``json`` lines for programs, ``quiet`` only warnings, and what was moved."""

    live = "live"
    plain = "plain"
    json = "json"
    quiet = "quiet"


def choose_mode(json: bool, quiet: bool) -> Mode:
    """The mode that the options and stderr ask for; ``json`` wins over ``quiet``.

    FORCE_COLOR is about colours: whether there is a terminal, only stderr knows.
    """
    if json:
        return Mode.json
    if quiet:
        return Mode.quiet
    return Mode.live if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else Mode.plain


@contextmanager
def show(mode: Mode, *, title: str, verbose: int = 0) -> Iterator[Observer]:
    """Gives the observer for ``mode``, and puts the terminal in order afterwards, whatever happens.

    Args:
        mode: as chosen by :func:`choose_mode`.
        title: what the work is about, such as the concept's name; only the panel shows it.
        verbose: from 1 on, checkpoints and previews get lines of their own.
    """
    match mode:
        case Mode.live:
            with live_panel(title, verbose=verbose) as observer:
                yield observer
        case Mode.plain:
            with stops_told(asked=_say_stopping):
                yield PlainLines(sys.stderr, verbose=verbose)
        case Mode.json:
            yield JsonLines(sys.stdout)
        case Mode.quiet:
            yield _what_must_be_known


def _say_stopping() -> None:
    """Past the buffer of the stream, in whose middle the signal may have come."""
    with suppress(OSError, ValueError):
        os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())


def _what_must_be_known(event: Event) -> None:
    if isinstance(event, Warned | PutAside):
        PlainLines(sys.stderr)(event)

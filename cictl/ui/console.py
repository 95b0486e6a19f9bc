"""Rich consoles for the two streams, set up alike: no markup, no emoji, no coloured numbers."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rich.console import Console

_WIDTH_OF_A_FILE = 160


def stdout_console() -> Console:
    """The console for results."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """The console for progress and errors."""
    return _console(sys.stderr, stderr=True)


def live_console() -> Console:
    """The console for the live panel, for use only after ``stderr.isatty()`` has said yes."""
    console = _console(sys.stderr, stderr=True)
    return Console(
        stderr=True, markup=False, highlight=False, emoji=False,
        force_terminal=True, force_interactive=True, no_color=console.no_color,
    )  # fmt: skip


def _console(stream: TextIO, *, stderr: bool = False) -> Console:
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        # A file name that the encoding cannot write must not end the program that reports it.
        stream.reconfigure(errors="backslashreplace")
    # Rich takes a pipe to be 80 wide and would break table rows that a program is to read.
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_FILE
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=width)

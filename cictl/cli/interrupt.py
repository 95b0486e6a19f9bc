"""Ctrl-C wherever nothing waits for the end of a step or of a picture.

Imports next to nothing, so that it is there before all that takes time to import.
"""

from __future__ import annotations

import os
import signal
import sys

MESSAGE = "stopped by Ctrl-C; everything that was finished is kept"
_TERMINATED = MESSAGE.replace("Ctrl-C", "SIGTERM")
HINT = "the same command again goes on from there"


class CtrlC(KeyboardInterrupt):
    """A Ctrl-C in a command.

    Not KeyboardInterrupt itself: once one of exactly that class has left an ``exec``, as it can where a dataclass is made,
    Python ends by the signal and not with the code that it is given, although the exception was caught.
    """


def end_on_ctrl_c() -> None:
    """From here on Ctrl-C is said and ends the process with 130, unless the caller has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


class CtrlCRaised:
    """A block in which Ctrl-C is an exception, if :func:`end_on_ctrl_c` was called."""

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is _end:
            signal.signal(signal.SIGINT, _raise)

    def __exit__(self, *error: object) -> None:
        if self._before is _end:
            signal.signal(signal.SIGINT, _end)


def _raise(number: int, frame: object) -> None:
    raise CtrlC


def _end(number: int, frame: object) -> None:
    """Imports nothing and raises nothing: an import may be half done, and libraries catch what they like."""
    say(number)
    os._exit(128 + number)


def say(number: int) -> None:
    """Say that signal ``number`` ends the process, past all that is buffered."""
    code, message = 128 + number, MESSAGE if number == signal.SIGINT else _TERMINATED
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one says it
        if "--json" in sys.argv:
            kind = '"event": "Error", "error": "interrupted", "slug": "interrupted"'
            os.write(1, f'{{{kind}, "message": "{message}", "hint": "{HINT}", "exit_code": {code}}}\n'.encode())
        else:
            os.write(2, f"error: {message}\n  -> {HINT}\n".encode())

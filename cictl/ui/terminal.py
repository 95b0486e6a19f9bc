"""Leaves the terminal as it was, also when a signal ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SHOW_CURSOR = b"\x1b[?25h\n"
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))  # no SIGHUP on Windows


def show_cursor(descriptor: int) -> None:
    """Straight to the terminal, since the code that a signal interrupts may hold the lock of the console."""
    os.write(descriptor, _SHOW_CURSOR)


@contextmanager
def cursor_restored(descriptor: int) -> Iterator[None]:
    """Shows the cursor again before a signal that nobody handles ends the process.

    Signals with a handler are left to it: their exceptions, KeyboardInterrupt among them, end the panel in
    the ordinary way.
    """

    def restore(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # a terminal that is closed
            show_cursor(descriptor)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, restore)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is restore:
                signal.signal(number, signal.SIG_DFL)

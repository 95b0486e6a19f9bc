"""A signal that asks the work to stop: what waits for the end of a step tells what shows the work, and neither knows the other.

A handler of signals may run in the middle of anything, also of a line that is being printed, so that what is told here
takes no lock: it sets a flag, or writes bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

STOPPING = "stopping after this step; a second Ctrl-C leaves at once"

_listening: list[tuple[Callable[[], None], Callable[[int], None]]] = []


@contextmanager
def stops_told(
    *, asked: Callable[[], None] = lambda: None, leaving: Callable[[int], None] = lambda number: None
) -> Iterator[None]:
    """A block in which ``asked`` hears of a first signal, and ``leaving``, with its number, of one that ends the process."""
    _listening.append((asked, leaving))
    try:
        yield
    finally:
        _listening.pop()


def forget_terminal() -> None:
    """Let what is shown from now on go nowhere where the terminal is gone: writing to it would end the work as an error."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            try:
                os.write(descriptor, b"")
            except OSError:
                os.dup2(nowhere, descriptor)
        os.close(nowhere)


def ask() -> None:
    """Tell that the work will stop soon."""
    for asked, _ in _listening:
        asked()


def leave(number: int) -> NoReturn:
    """Tell that the process ends, the innermost block first, and end it with the exit code of signal ``number``."""
    for _, leaving in reversed(_listening):
        with suppress(OSError):  # a terminal that is closed
            leaving(number)
    os._exit(128 + number)

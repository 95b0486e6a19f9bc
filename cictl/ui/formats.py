"""Numbers, times and paths as short text."""

from __future__ import annotations

import math

from rich.cells import cell_len

from cictl.events import Memory
from cictl.sizes import size_in_words


def put_aside(path: str) -> str:
    """What stands before the command that brings a training back."""
    return f"the training until now is in {path}; to have it back:"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, such as ``0:00:39``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def rough_duration(seconds: float) -> str:
    """An estimated time, such as ``40 s``, ``12 min`` or ``29.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def pictures(count: int) -> str:
    """``1 picture``, ``4 pictures``."""
    return "1 picture" if count == 1 else f"{count} pictures"


def all_there(count: int) -> str:
    """``the picture is there``, ``all 4 pictures are there``."""
    return "the picture is there" if count == 1 else f"all {count} pictures are there"


def would_draw(total: int, kept: int | None, *, then: str = "") -> str:
    """What a dry run says of ``total`` pictures, not all of which are there.

    Args:
        kept: how many are; None where that is not known.
        then: what would be done with all of them, such as ``measured``.
    """
    and_then = f" and {then}" if then else ""
    if kept:
        rest = f"; all would be {then}" if then else ""
        return f"{total - kept} of {pictures(total)} would be drawn, the rest is there already{rest}"
    known = "" if kept == 0 else ", of which those that are there are kept"
    return f"{pictures(total)} would be drawn{and_then}{known}"


def rate(seconds_per_step: float) -> str:
    """The pace, turned so that the number is at least one: ``7.1 it/s`` or ``1.40 s/it``."""
    if seconds_per_step <= 0 or not math.isfinite(seconds_per_step):
        return "-- s/it"
    if seconds_per_step < 1:
        return f"{1 / seconds_per_step:.1f} it/s"
    return f"{seconds_per_step:.2f} s/it"


def seconds(value: float) -> str:
    """Seconds with as many decimals as a short time needs: ``1.40``, ``0.14``, ``0.021``."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def loss(value: float) -> str:
    """Four figures at most: ``0.1234``, ``1.020``, ``2.1e-05``."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 10_000 or 0 < size < 0.001:
        return f"{value:.1e}"
    if size < 1:
        return f"{value:.4f}"
    return f"{value:#.4g}".rstrip(".")


def percent(done: int, total: int) -> str:
    """Whole percent, rounded down, so that 100% means all of it."""
    return f"{100 * done // total if total else 100}%"


def memory_label(memory: Memory) -> str:
    """``VRAM`` for memory of a GPU, ``RAM`` for memory of the process."""
    return "VRAM" if memory.device.startswith(("cuda", "mps")) else "RAM"


def memory_use(memory: Memory) -> str:
    """In use of the total, such as ``1.1/23.4 GiB``; the unit is said once where it is the same."""
    return of_total(memory.allocated, memory.total) if memory.total > 0 else size_in_words(memory.allocated)


def of_total(count: int, total: int) -> str:
    """Bytes of a total, such as ``1.1/4.0 GiB``; the unit is said once where it is the same."""
    part, whole = size_in_words(count), size_in_words(total)
    (number, unit), (_, unit_of_whole) = part.split(), whole.split()
    return f"{number if unit == unit_of_whole else part}/{whole}"


def clip(text: str, width: int, ellipsis: str = "…") -> str:
    """``text`` in at most ``width`` cells, cut at the right."""
    if cell_len(text) <= width:
        return text
    room = max(0, width - cell_len(ellipsis))
    while text and cell_len(text) > room:
        text = text[:-1]
    return (text + ellipsis)[:width]


def clip_path(path: str, width: int, ellipsis: str = "…") -> str:
    """``path`` in at most ``width`` cells, cut at the left, between two folders where that is possible."""
    if cell_len(path) <= width:
        return path
    room = max(0, width - cell_len(ellipsis))
    while path and cell_len(path) > room:
        path = path[1:]
    slash = path.find("/")
    return (ellipsis + path[max(0, slash) :])[:width]

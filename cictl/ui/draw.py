"""The parts of the panel, each exactly as wide as asked; text from outside goes in as text, not markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from cictl.events import Memory
from cictl.sizes import size_in_words
from cictl.ui import formats
from cictl.ui.glyphs import Glyphs
from cictl.ui.sparkline import History, sparkline
from cictl.ui.state import Download

_NARROWEST_METER = 8


class Done:
    """A line about something done, for above the panel.

    It fits the width: ``details`` are left out from the first that does not fit, ``path`` is cut at the left.
    """

    def __init__(self, what: str, glyphs: Glyphs, path: str = "", details: Sequence[str] = ()) -> None:
        self._what = what
        self._path = path
        self._details = details
        self._glyphs = glyphs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        what = formats.clip(self._what, options.max_width - len(self._glyphs.tick) - 1, self._glyphs.ellipsis)
        line = Text.assemble((self._glyphs.tick, "green"), f" {what}")
        for detail in self._details:
            if line.cell_len + 2 + cell_len(detail) > options.max_width:
                break
            line.append(f"  {detail}", "dim")
        room = options.max_width - line.cell_len - 2
        if self._path and room > 0:
            line.append("  " + formats.clip_path(self._path, room, self._glyphs.ellipsis), "dim")
        yield line


def bar(done: int, total: int, width: int, glyphs: Glyphs, style: str) -> Text:
    """A bar of ``width`` cells; without colour its two halves still differ."""
    filled = min(width, width * done // total) if total > 0 else width
    return Text.assemble((glyphs.done * filled, style), (glyphs.todo * (width - filled), "dim"))


def counted_bar(done: int, total: int, width: int, glyphs: Glyphs, style: str, unit: str = "") -> Text:
    """A bar and, right of it, the count and the percentage."""
    count = f"{done:>{len(str(total))}}/{total}{unit}"
    tail = f"  {count}  {formats.percent(done, total):>4}"
    return Text.assemble(bar(done, total, max(0, width - len(tail)), glyphs, style), tail)


def download(state: Download, width: int, glyphs: Glyphs, now: float, model: str, file: str) -> list[Text]:
    """What is fetched, and below it a bar with the bytes of the total."""
    title = Text(formats.clip(f"fetching {model}  {file}", width, glyphs.ellipsis))
    tail = ""
    for fact in state.facts(now):  # the last ones are left out where it is narrow
        if len(tail) + 2 + len(fact) + _NARROWEST_METER <= width:
            tail += f"  {fact}"
    return [title, Text.assemble(bar(state.done, state.total, max(0, width - len(tail)), glyphs, "cyan"), tail)]


def facts(pairs: Iterable[tuple[str, str]], width: int, glyphs: Glyphs) -> Text:
    """Short facts in a row, such as ``7.1 it/s · ETA 0:00:39``; the first ones are left out where it is narrow.

    Args:
        pairs: names, which may be empty, and values.
    """
    every = list(pairs)
    rows = (_in_a_row(every[first:], glyphs) for first in range(len(every)))
    return next((row for row in rows if row.cell_len <= width), Text())


def _in_a_row(pairs: Sequence[tuple[str, str]], glyphs: Glyphs) -> Text:
    line = Text()
    for name, value in pairs:
        if line:
            line.append(f" {glyphs.separator} ", "dim")
        if name:
            line.append(f"{name} ", "dim")
        line.append(value)
    return line


def label(name: str, width: int, glyphs: Glyphs) -> Text:
    """``name`` in a column of ``width`` cells, and the gap to the next column."""
    shown = formats.clip(name, width, glyphs.ellipsis)
    return Text(shown + " " * (width - cell_len(shown) + 2), "dim")


def loss_line(value: float | None, history: History, width: int, glyphs: Glyphs, style: str) -> Text:
    """The value now and the way to it."""
    number = "--" if value is None else formats.loss(value)
    bad = number in {"nan", "inf", "-inf"}
    room = max(0, width - 9)
    return Text.assemble(
        (f"{number:>7}  ", "bold red" if bad else "bold"),
        (sparkline(history.means(room), glyphs.sparks), style),
    )


def meter(memory: Memory, width: int, glyphs: Glyphs) -> Text:
    """Memory in use as a bar with a mark at the peak, then the numbers."""
    tail = f"  {formats.memory_use(memory)}"
    with_peak = f"{tail}  peak {size_in_words(memory.peak)}"
    if width - len(with_peak) >= _NARROWEST_METER:
        tail = with_peak
    room = width - len(tail)
    if memory.total <= 0 or room < _NARROWEST_METER:
        return Text(tail.strip())
    used = min(room, -(-room * memory.allocated // memory.total))  # rounded up: some is never shown as none
    peak = min(room - 1, room * memory.peak // memory.total)
    line = Text.assemble((glyphs.used * used, _pressure(memory.allocated / memory.total)), (glyphs.free * (room - used), "dim"))
    mark = Text(glyphs.peak, _pressure(memory.peak / memory.total))
    return Text.assemble(line[:peak], mark, line[peak + 1 :], tail)


def _pressure(share: float) -> str:
    return "green" if share < 0.75 else "yellow" if share < 0.92 else "red"

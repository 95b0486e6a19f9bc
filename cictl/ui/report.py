"""Results on stdout and errors on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cictl.errors import CictlError, Interrupted
from cictl.ui.console import stderr_console, stdout_console
from cictl.ui.glyphs import glyphs_for, printable
from cictl.ui.json_lines import json_line

__all__ = [
    "Listing",
    "exit_code",
    "print_error",
    "print_facts",
    "print_json",
    "print_result",
    "print_text",
    "stderr_console",
    "stdout_console",
]

_GAP = 3  # between the columns of a table
# A command in backticks, one that begins with cictl and ends where the sentence goes on, or a word.
_COMMAND = re.compile(r"`[^`]+`\S*|\bcictl(?: +[^\s,;:()]+)+[,;:)]*|\S+")


def exit_code(error: CictlError) -> int:
    """The exit code of ``error``; an interruption's depends on its signal."""
    return error.stopped_with if isinstance(error, Interrupted) else error.exit_code


def print_error(error: CictlError, *, json: bool) -> None:
    """Says what is wrong and what to do next: on stderr, or as a JSON object on stdout, unless that cannot be written."""
    if json:
        values = {"error": error.kind, "slug": error.slug, "message": error.message, "hint": error.hint}
        with suppress(OSError):
            print_json({"event": "Error", **values, "exit_code": exit_code(error)})
            return
    with suppress(OSError):
        _print_error(error)


def _print_error(error: CictlError) -> None:
    console = stderr_console()
    arrow = glyphs_for(console.encoding).arrow
    _print_wrapped(console, Text.assemble(("error:", "bold red"), " "), error.message)
    for line in error.hint.splitlines():
        _print_wrapped(console, Text.assemble((f"  {arrow}", "cyan"), " "), line)


def print_json(values: dict[str, object]) -> None:
    """Prints ``values`` as one line of JSON on stdout."""
    print(json_line(values), file=sys.stdout, flush=True)


def print_result(*parts: RenderableType) -> None:
    """Prints each part on stdout; strings stand as they are, and unbroken, so that paths can be copied."""
    console = stdout_console()
    for part in parts:
        if isinstance(part, str):
            console.print(_cell(part), soft_wrap=True)
        else:
            console.print(part)


def print_text(text: str, lead: str = "") -> None:
    """Prints ``text`` after ``lead`` on stdout: on a terminal wrapped between words, later lines below its beginning."""
    _print_wrapped(stdout_console(), Text(lead), text)


def print_facts(facts: Mapping[str, str]) -> None:
    """Prints what each is on stdout, behind its name, one below another."""
    for name, value in facts.items():
        print_text(value, f"{name + ':':<10}")


class Listing:
    """A table in the one style of this program, whose cells are text, not markup.

    Where it is so narrow that a word would not fit into its column, the rows stand one below another, a line for each cell.
    """

    def __init__(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self._columns = [_cell(column) for column in columns]
        self._rows = [[_cell(value) for value in row] for row in rows]

    @property
    def width(self) -> int:
        """Cells in which no row has to be folded."""
        columns = list(zip(self._columns, *self._rows, strict=True))
        return sum(max(cell.cell_len for cell in cells) for cells in columns) + _GAP * (len(columns) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrowest, widths = [], []
        for cells in zip(self._columns, *self._rows, strict=True):
            measured = [Measurement.get(console, options, cell) for cell in cells]
            narrowest.append(max(one.minimum for one in measured))
            widths.append(max(one.maximum for one in measured))
        room = options.max_width - _GAP * (len(widths) - 1)
        if sum(narrowest) > room:
            yield from self._one_below_another()
            return
        while sum(widths) > room:  # the widest that can gives way
            widest = max((place for place in range(len(widths)) if widths[place] > narrowest[place]), key=widths.__getitem__)
            widths[widest] -= 1
        result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        for column, width in zip(self._columns, widths, strict=True):
            result.add_column(column, width=width)
        for row in self._rows:
            result.add_row(*row)
        yield result

    def _one_below_another(self) -> RenderResult:
        for number, (name, *others) in enumerate(self._rows):
            if number:
                yield Text()
            yield name
            own = Table.grid(padding=(0, 2, 0, 0))
            own.add_column(no_wrap=True)
            own.add_column(overflow="fold")
            for column, cell in zip(self._columns[1:], others, strict=True):
                own.add_row(Text("  ").append_text(column), cell)
            yield own


def _cell(value: object) -> Text:
    return Text("\n".join(printable(line) for line in str(value).split("\n")))


def _print_wrapped(console: Console, lead: Text, message: str) -> None:
    """Prints ``message`` after ``lead``, later lines below its beginning; off a terminal on one line each."""
    indent = lead.cell_len
    room = max(20, console.width - indent) if console.file.isatty() else None
    first = True
    for paragraph in message.splitlines() or [""]:
        text = printable(paragraph, console.encoding)
        for line in [text] if room is None else _wrap(text, room):
            # Soft wrapping, since a command wider than the terminal is copied whole only if left alone.
            margin = lead if first else Text(" " * indent)
            console.print(Text.assemble(margin, line), soft_wrap=True)
            first = False


def _wrap(text: str, width: int) -> Iterator[str]:
    """Lines of at most ``width`` cells; commands stay whole where they fit, and words always.

    A text that is indented goes on two cells further in.
    """
    if cell_len(text) <= width:
        yield text  # as it is, with the spaces it may be aligned by
        return
    margin = " " * (len(text) - len(text.lstrip()))
    line, indent = "", margin
    for piece in _pieces(text, width - len(margin)):
        if line and cell_len(f"{indent}{line} {piece}") > width:
            yield indent + line
            line, indent = piece, margin and f"{margin}  "
        else:
            line = f"{line} {piece}" if line else piece
    yield indent + line


def _pieces(text: str, width: int) -> Iterator[str]:
    for piece in _COMMAND.findall(text):
        if cell_len(piece) <= width or piece.startswith("`"):
            yield piece
        else:
            yield from piece.split()

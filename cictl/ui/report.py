"""Results on stdout and errors on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cictl.errors import CictlError, Interrupted
from cictl.ui.console import stderr_console, stdout_console
from cictl.ui.glyphs import glyphs_for, printable
from cictl.ui.json_lines import json_line

__all__ = [
    "exit_code",
    "print_error",
    "print_json",
    "print_result",
    "stderr_console",
    "stdout_console",
    "table",
]

# A command in backticks, one that begins with cictl and ends where the sentence goes on, or a word.
_COMMAND = re.compile(r"`[^`]+`\S*|\bcictl(?: +[^\s,;:()]+)+[,;:)]*|\S+")


def exit_code(error: CictlError) -> int:
    """The exit code of ``error``; an interruption's depends on its signal."""
    return error.stopped_with if isinstance(error, Interrupted) else error.exit_code


def print_error(error: CictlError, *, json: bool) -> None:
    """Says what is wrong and what to do next: on stderr, or as a JSON object on stdout."""
    if json:
        values = {"error": error.kind, "slug": error.slug, "message": error.message, "hint": error.hint}
        print_json({**values, "exit_code": exit_code(error)})
        return
    console = stderr_console()
    arrow = glyphs_for(console.encoding).arrow
    _print_wrapped(console, Text("error:", "bold red"), error.message)
    for line in error.hint.splitlines():
        _print_wrapped(console, Text(f"  {arrow}", "cyan"), line)


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


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table in the one style of this program; cells are text, not markup, and fold where it is narrow."""
    result = Table(
        title=_cell(title) if title else None, title_justify="left", title_style="bold",
        box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False,
    )  # fmt: skip
    for column in columns:
        result.add_column(_cell(column), overflow="fold")
    for row in rows:
        result.add_row(*(_cell(value) for value in row))
    return result


def _cell(value: object) -> Text:
    return Text("\n".join(printable(line) for line in str(value).split("\n")))


def _print_wrapped(console: Console, lead: Text, message: str) -> None:
    """Prints ``message`` after ``lead``, later lines below its beginning; off a terminal on one line each."""
    indent = lead.cell_len + 1
    room = max(20, console.width - indent) if console.file.isatty() else None
    first = True
    for paragraph in message.splitlines() or [""]:
        text = printable(paragraph, console.encoding)
        for line in [text] if room is None else _wrap(text, room):
            # Soft wrapping, since a command wider than the terminal is copied whole only if left alone.
            margin = Text.assemble(lead, " ") if first else Text(" " * indent)
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

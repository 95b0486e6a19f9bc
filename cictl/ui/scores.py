"""A table of means and standard deviations that fits the terminal: where it is narrow, the means alone, or in a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from cictl.ui.glyphs import printable
from cictl.ui.report import Listing

_ROOM_FOR_A_PROMPT = 32
_LEAST_ROOM_FOR_A_PROMPT = 6
_GAP = 2
_MEAN = len("-0.000")

Pair = tuple[float | None, float | None]


class ScoreTable:
    """Rows of figures with a name each, and, where there is one, below a line the row of all of them.

    Args:
        name: of the column of names.
        columns: names of the figures.
        rows: a mean and a standard deviation for each figure, None where there is none, by the row's name.
        overall: the same for the last row; none without one.
    """

    def __init__(
        self, name: str, columns: Sequence[str], rows: Mapping[str, Sequence[Pair]], overall: Sequence[Pair] | None = None
    ) -> None:
        self._name = name
        self._columns = columns
        self._rows = rows
        self._overall = overall

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plus_minus = "+-" if options.ascii_only else "±"
        spread = len(f" {plus_minus} 0.000")
        wide = len(self._columns) * (_MEAN + spread + _GAP) + _ROOM_FOR_A_PROMPT <= options.max_width
        mark = plus_minus if wide else ""
        widths = [max(len(column), _MEAN + (spread if wide else 0)) for column in self._columns]
        if _LEAST_ROOM_FOR_A_PROMPT + sum(width + _GAP for width in widths) > options.max_width:
            rows = {**self._rows, **({"mean": self._overall} if self._overall else {})}
            yield Listing([self._name, *self._columns], [[name, *(_figure(mean) for mean, _ in rows[name])] for name in rows])
            return
        table = Table(
            box=box.SIMPLE, header_style="bold", footer_style="bold", padding=(0, 1, 0, 0), pad_edge=False, show_edge=False,
            show_footer=self._overall is not None,
        )  # fmt: skip
        table.add_column(self._name, footer="mean", overflow="fold")
        for column, pair, width in zip(self._columns, self._overall or [(None, None)] * len(widths), widths, strict=True):
            table.add_column(column.rjust(width), footer=_cell(pair, mark, width), no_wrap=True)
        for name, pairs in self._rows.items():
            cells = (_cell(pair, mark, width) for pair, width in zip(pairs, widths, strict=True))
            table.add_row(Text(printable(name, options.encoding)), *cells)
        yield table


def _figure(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"


def _cell(pair: Pair, plus_minus: str, width: int) -> Text:
    """The figure at the right of ``width`` cells, its mean below the other means also if it has no standard deviation."""
    mean, spread = pair
    if mean is None:
        return Text("-".rjust(width))
    if not plus_minus:
        return Text(_figure(mean).rjust(width))
    room = len(f" {plus_minus} 0.000")
    behind = f" {plus_minus} {spread:.3f}" if spread is not None else ""
    return Text.assemble(f"{mean:.3f}".rjust(width - room), (behind.ljust(room), "dim"))

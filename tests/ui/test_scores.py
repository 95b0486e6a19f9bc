"""The table of figures at the widths of terminals."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from cictl.ui.scores import ScoreTable

COLUMNS = ["DINOv2", "CLIP-I", "CLIP-T", "fidelity", "alignment", "leakage"]
ROWS = {
    "a photo of S* next to a small yellow cube": [(0.5 + place / 10, 0.01 * place) for place in range(6)],
    "a cube-shaped S*": [(0.25, None)] * 5 + [(None, None)],
    "[red]S*[/] with \x1b[31m marks": [(-0.125, 0.5)] * 6,
}
OVERALL = [(0.375, 0.2)] * 6


def test_without_a_row_of_all_there_is_none_and_no_line_above_it():
    file = io.StringIO()
    Console(file=file, width=120).print(ScoreTable("method", COLUMNS[:1], {"ours": [(0.5, 0.1)]}))
    lines = [line.split() for line in file.getvalue().splitlines() if line.strip()]
    assert [line for line in lines if set("".join(line)) != {"─"}] == [["method", "DINOv2"], ["ours", "0.500", "±", "0.100"]]
    assert len(lines) == 3


def drawn(width: int, columns: int, encoding: str = "utf-8", colour: bool = False) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(
        file=file, width=width, markup=False, highlight=False, force_terminal=colour, color_system="standard" if colour else None
    )
    rows = {name: pairs[:columns] for name, pairs in ROWS.items()}
    console.print(ScoreTable("prompt", COLUMNS[:columns], rows, OVERALL[:columns]))
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
@pytest.mark.parametrize("columns", [1, 3, 5, 6])
def test_no_line_is_wider_than_the_terminal_and_every_mean_is_whole(width, columns):
    lines = drawn(width, columns).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    for place in range(columns):
        assert any(f"{0.5 + place / 10:.3f}" in line for line in lines)
    assert sum(line.count("-0.125") for line in lines) == columns
    assert lines[-1].startswith("mean") and lines[-1].count("0.375") == columns


@pytest.mark.parametrize("width", [30, 40, 50])
def test_where_a_row_does_not_fit_its_figures_stand_one_below_another(width):
    lines = drawn(width, 6).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert [line.split() for line in lines[-7:]] == [["mean"], *([name, "0.375"] for name in COLUMNS)]


@pytest.mark.parametrize(
    ("width", "columns", "spread"), [(60, 3, False), (80, 3, True), (120, 5, True), (60, 1, True), (80, 6, False)]
)
def test_standard_deviations_are_shown_where_there_is_room(width, columns, spread):
    assert ("±" in drawn(width, columns)) == spread


def test_what_is_missing_is_a_dash_and_columns_stay_in_line():
    lines = drawn(160, 6).splitlines()
    [sparse] = [line for line in lines if line.startswith("a cube-shaped")]
    assert sparse.rstrip().endswith("-")
    [full] = [line for line in lines if line.startswith("a photo")]
    assert sparse.index("0.250") == full.index("0.500")
    [negative] = [line for line in lines if line.startswith("[red]")]
    assert negative.index("±") == full.index("±")  # whether or not there is a sign


def test_off_a_terminal_it_is_plain_and_in_ascii_where_the_encoding_is():
    assert "\x1b" not in drawn(120, 3)
    text = drawn(120, 3, "ascii")
    assert text.isascii() and "0.375 +- 0.200" in text


def test_names_are_text_and_no_markup():
    assert "[red]S*[/] with  [31m marks" in drawn(120, 3)
    assert "\x1b[31m" not in drawn(120, 3, colour=True)

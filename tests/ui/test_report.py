"""Errors and results."""

from __future__ import annotations

import io
import json

import pytest
from rich.cells import cell_len
from rich.console import Console

from cictl.errors import Interrupted, ResourceError, UsageError
from cictl.exporters.registry import FORMATS
from cictl.ui.report import Listing, exit_code, print_error, print_result, print_text, stdout_console


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.seek(0)
        return self.read()


ERROR = ResourceError(
    "the memory of [red]cuda:0[/] is full at batch_size 4 in /home/someone/summer/ci.yaml",
    "make some room there, then run: cictl invert dog --set batch_size=2\nsecond hint",
    slug="memory-full",
)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def test_off_a_terminal_an_error_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(ERROR, json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"error: {ERROR.message}",
        "  → make some room there, then run: cictl invert dog --set batch_size=2",
        "  → second hint",
    ]


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_on_a_terminal_it_wraps_and_keeps_commands_whole(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stderr = Terminal(encoding)
    monkeypatch.setattr("sys.stderr", stderr)
    print_error(ERROR, json=False)
    text = stderr.text()
    lines = text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert lines[0].startswith("error: the memory of [red]cuda:0[/] is full")
    assert all(cell_len(line) <= 60 for line in lines)
    assert any(line.strip() == "cictl invert dog --set batch_size=2" for line in lines)
    assert ("→ " if encoding == "utf-8" else "-> ") in text
    assert not any(f"\x1b[{code}" in text for code in ("3", "9", "1;3"))


@pytest.mark.usefixtures("narrow")
def test_only_the_word_error_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    print_error(UsageError("no", "say yes", slug="no"), json=False)
    assert stderr.text() == "\x1b[1;31merror:\x1b[0m no\n\x1b[36m  →\x1b[0m say yes\n"


def test_a_json_error_is_an_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(Interrupted(15, "stopped at step 5", "cictl invert dog"), json=True)
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "event": "Error", "error": "interrupted", "slug": "interrupted", "message": "stopped at step 5",
        "hint": "cictl invert dog", "exit_code": 143,
    }  # fmt: skip
    assert exit_code(ERROR) == 5


def test_results_are_text_and_unbroken(capsys: pytest.CaptureFixture[str]) -> None:
    path = "/somewhere/[red]/[/]/" + "x" * 300
    print_result(path, "two\nlines :dog:")
    assert capsys.readouterr().out == f"{path}\ntwo\nlines :dog:\n"


@pytest.mark.parametrize("width", [60, 120])
def test_a_table_fits_and_shows_its_cells_as_they_are(width: int) -> None:
    paper = io.StringIO()
    rows = [["/home/someone/" + "deep/" * 30 + "1.png", "a [red]photo[/] of S* " * 5, 12]]
    Console(width=width, file=paper, force_terminal=True, color_system=None).print(Listing(["[b]file", "prompt", "seed"], rows))
    text = paper.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "[red]photo[/]" in text


@pytest.mark.parametrize("width", [30, 40, 60, 70, 80, 100, 160])
def test_the_formats_are_listed_with_every_word_whole_at_any_width(width: int) -> None:
    paper = io.StringIO()
    columns = ("name", "holds", "read by", "form", "size on SD 1.5")
    rows = [(one.name, one.holds, one.readers, one.fidelity, one.size) for one in FORMATS]
    Console(width=width, file=paper, force_terminal=True, color_system=None).print(Listing(columns, rows))
    text = paper.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    there = text.split()
    for row in rows:
        assert not [word for cell in row for word in cell.split() if there.count(word) < 1]
    assert [word for word in there if word in {one.name for one in FORMATS}].count("diffusers-embedding") == 1


@pytest.mark.usefixtures("narrow")
def test_a_text_wraps_between_words_below_its_beginning_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "each method after its last step; the best of what was kept along the way, where that is another\nmore"
    print_text(text, "chosen:   ")
    first, second = text.splitlines()
    assert capsys.readouterr().out == f"chosen:   {first}\n          {second}\n"
    stdout = Terminal()
    monkeypatch.setattr("sys.stdout", stdout)
    print_text(text, "chosen:   ")
    lines = stdout.text().splitlines()
    assert len(lines) > 2 and all(cell_len(line) <= 60 for line in lines)
    assert lines[0].startswith("chosen:   each") and all(line.startswith(" " * 10) for line in lines[1:])
    assert " ".join(line[10:] for line in lines) == " ".join(text.split())


def test_names_that_cannot_be_encoded_do_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Terminal("ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    print_result("Käse \udcff")
    assert stdout.text() == "K\\xe4se ?\n"
    assert stdout_console().file is stdout

"""Thousands of odd ci.yaml files and broken pictures, through the command line.

Each must be refused with exit code 2, or used with 0; never a traceback, and never a gigabyte of memory.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.memory import peak_resident
from cictl.cli.app import main
from cictl.events import ignore
from cictl.workflow import check, init

MOST_MEBIBYTES = 1000
_ALLOWED = (0, 2)
_BUG = ("Traceback", "this is a bug of cictl")
_SIDE = 96
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "heic": "HEIF"}
_PIECES = (
    "", "\n", "  ", "\t", ":", ": ", "- ", "[", "]", "{", "}", "'", '"', "#", "&a ", "*a", "!!python/object:os.system ", "<<: ",
    "|", ">", "---\n", "...", "%YAML 9\n", "\x00", "\x1b[31m", "\u2028", "\ufeff", "[red]", "[/]", "null", "true", "on", "~",
    "1e999", "-1", "0x10", "010", "5e-4", ".inf", ".nan", "9" * 400, "S*", "A*", "s*", "S* S*", "\U0001f600", "invert:\n",
    "  steps: ", "model:\n  id: ", "/" * 300, "[" * 200, "{" * 200, "- " * 500, "? ", "a: " * 50,
)  # fmt: skip
_PLACES = st.floats(0, 1, exclude_max=True)
_TEXT_EDITS = st.lists(
    st.tuples(_PLACES, st.sampled_from((0, 0, 1, 3, 20, 300)), st.sampled_from(_PIECES) | st.text(max_size=20)),
    min_size=1, max_size=6,
)  # fmt: skip
# Where, and what: a byte put there, a stretch of zeros, a stretch copied from elsewhere, or the end.
_BYTE_EDITS = st.lists(
    st.tuples(_PLACES | st.floats(0, 0.02), st.sampled_from(("flip", "zeros", "splice", "cut")), st.integers(0, 255)),
    min_size=1, max_size=20,
)  # fmt: skip


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        codes: how often each exit code came.
        wrong: other exit codes and tracebacks, with what brought them about.
        mebibytes: the most memory that the process had.
    """

    codes: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    mebibytes: int = 0


def configurations(folder: Path, times: int, drawn_with: int = 0) -> Outcome:
    """Run `cictl status` with ``times`` files that grew out of what `init` writes; ``drawn_with`` is the seed."""
    workspace = init.run(folder / "configurations", model="toybox")
    plain = workspace.config_file.read_text("utf-8")
    outcome = Outcome()

    @seed(drawn_with)
    @_often(times)
    @given(st.booleans(), _TEXT_EDITS, st.binary(max_size=2))
    def attempt(from_plain: bool, edits: list[tuple[float, int, str]], behind: bytes) -> None:
        text = plain if from_plain else ""
        for where, length, piece in edits:
            start = int(where * len(text))
            text = text[:start] + piece + text[start + length :]
        workspace.config_file.write_bytes(text.encode("utf-8", "replace") + behind)
        _judge(outcome, ["status", "-C", str(workspace.root)])

    return _finished(outcome, attempt)


def pictures(folder: Path, times: int, drawn_with: int = 0) -> Outcome:
    """Run `cictl invert --dry-run` with ``times`` pictures that were broken somewhere, beside two that are whole."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    workspace = init.run(folder / "pictures", model="toybox")
    whole = {suffix: _picture(kind, number) for number, (suffix, kind) in enumerate(_FORMATS.items(), 10)}
    for number in range(2):
        (workspace.images / f"whole-{number}.png").write_bytes(_picture("PNG", number))
    outcome = Outcome()

    @seed(drawn_with)
    @_often(times)
    @given(st.sampled_from(list(_FORMATS)), _BYTE_EDITS)
    def attempt(suffix: str, edits: list[tuple[float, str, int]]) -> None:
        for path in workspace.images.glob("broken.*"):
            path.unlink()
        (workspace.images / f"broken.{suffix}").write_bytes(_spoiled(whole[suffix], edits))
        _judge(outcome, ["invert", "--dry-run", "-C", str(workspace.root)])

    expected = check.expect(workspace, "invert", ignore, {})  # takes a second, and does not depend on the pictures
    with mock.patch("cictl.workflow.check.expect", return_value=expected):
        return _finished(outcome, attempt)


def _often(times: int) -> settings:
    return settings(max_examples=times, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def _judge(outcome: Outcome, arguments: list[str]) -> None:
    code, said = _run(arguments)
    outcome.codes[code] = outcome.codes.get(code, 0) + 1
    assert code in _ALLOWED, f"exit {code}: {said[-300:]}"
    assert not any(sign in said for sign in _BUG), said[-300:]


def _finished(outcome: Outcome, attempt: Callable[[], None]) -> Outcome:
    try:
        attempt()
    except AssertionError as error:  # hypothesis has made it as small as it can
        outcome.wrong.append("\n".join([str(error), *getattr(error, "__notes__", [])]))
    outcome.mebibytes = peak_resident() // 2**20
    return outcome


def _run(arguments: list[str]) -> tuple[int, str]:
    """A command in this process: its exit code, and what it said."""
    said = io.StringIO()
    with _as_arguments(arguments), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
            code = 0
        except SystemExit as ending:
            code = int(ending.code or 0)
        except BaseException as error:
            return 1, f"Traceback: {type(error).__name__}: {error}"
    return code, said.getvalue()


@contextlib.contextmanager
def _as_arguments(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, ["cictl", *arguments]
    try:
        yield
    finally:
        sys.argv = before


def _spoiled(whole: bytes, edits: list[tuple[float, str, int]]) -> bytes:
    content = bytearray(whole)
    for where, how, number in edits:
        place = int(where * len(content))
        if how == "cut":
            del content[place:]
        elif how == "zeros":
            content[place : place + number] = bytes(number)
        elif how == "splice":
            content[place:place] = content[number : 2 * number]
        elif content:
            content[place] = number
    return bytes(content)


def _picture(kind: str, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()

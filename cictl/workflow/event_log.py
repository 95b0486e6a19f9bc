"""logs/<stage>.jsonl: every event of a stage's training, a JSON object a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from cictl.errors import ResourceError
from cictl.events import Event, Observer
from cictl.files import how_to_write, write_atomic


class EventLog:
    """Appends events to a file, and passes them on.

    The lines of steps hold the step and its losses alone, no time, so that two runs can be compared.

    Args:
        path: the file.
        keep_steps: lines of later steps are cut off: they will be made again. None starts the file anew.
        observe: who else is told.
        held: leave the file alone until :meth:`begin`; what is told before is written then.
    """

    def __init__(self, path: Path, keep_steps: int | None, observe: Observer, *, held: bool = False) -> None:
        self._path = path
        self._keep_steps = keep_steps
        self._observe = observe
        self._held: list[str] = []
        self._file: TextIO | None = None
        if not held:
            self.begin()

    def begin(self) -> None:
        """Cut the file, and write what was held back."""
        with _disk_errors(self._path):
            self._path.parent.mkdir(exist_ok=True)
            _cut(self._path, self._keep_steps)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            self._file.writelines(self._held)
            self._file.flush()

    def __call__(self, event: Event) -> None:
        line = event.as_json()
        if event.name != "StepCompleted":
            line["time"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = json.dumps(line) + "\n"
        if self._file is None:
            self._held.append(text)
        else:
            with _disk_errors(self._path):
                self._file.write(text)
                self._file.flush()
        self._observe(event)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):  # a full disk has been told already
            if self._file is not None:
                self._file.close()


def read_losses(path: Path) -> list[tuple[int, dict[str, float]]]:
    """The steps of a log with their losses."""
    steps: list[tuple[int, dict[str, float]]] = []
    _each_line(path, lambda line: steps.append((line["step"], line["losses"])) if line.get("event") == "StepCompleted" else None)
    return steps


def read_progress(path: Path) -> tuple[int, int, float | None]:
    """How far the training that writes a log is: steps that are done and asked for, and the seconds that the others will take.

    Before the log says so, the steps are 0, and the time is None.
    """
    found: tuple[int, int, float | None] = (0, 0, None)

    def take(line: dict[str, Any]) -> None:
        nonlocal found
        if line.get("event") == "PhaseStarted":  # of a run that goes on, which is getting ready
            found = (0, 0, None)
        elif line.get("event") == "StageStarted":
            found = (line["first_step"], line["steps"], None)
        elif line.get("event") == "Progress":
            found = (line["step"], line["steps"], line["seconds_per_step"] * (line["steps"] - line["step"]))

    _each_line(path, take)
    return found


def _cut(path: Path, keep_steps: int | None) -> None:
    if keep_steps is None or not path.exists():
        path.unlink(missing_ok=True)
        return
    kept: list[str] = []

    def keep(line: dict[str, Any]) -> None:
        if not isinstance(line.get("step"), int) or line["step"] <= keep_steps:
            kept.append(json.dumps(line) + "\n")

    _each_line(path, keep)
    write_atomic(path, "".join(kept).encode())


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"the log {path} cannot be written: {error.strerror}",
            how_to_write(path, error),
            slug="log-not-written",
        ) from None


def _each_line(path: Path, use: Callable[[dict[str, Any]], None]) -> None:
    for text in path.read_text("utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # the last line of a killed process
            continue
        if isinstance(line, dict):
            use(line)

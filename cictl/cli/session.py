"""How a command runs: its workspace, its display, its exit code."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer

from cictl.cli.interrupt import HINT, MESSAGE, CtrlCRaised, say
from cictl.cli.libraries import library_not_loaded
from cictl.cli.options import Common
from cictl.config import parse_overrides
from cictl.errors import BusyError, CictlError, Interrupted, ResourceError, StateError, UsageError
from cictl.events import Observer
from cictl.files import as_typed, how_to_allow, is_full, quoted
from cictl.processes import launched, leave_at_once
from cictl.stops import stops_told
from cictl.ui.display import Mode, choose_mode, show
from cictl.ui.glyphs import printable
from cictl.ui.report import exit_code, print_error, print_json
from cictl.workspace import Workspace, find_workspace

Outcome = TypeVar("Outcome")

_IN_A_WORKSPACE = "check|invert|finetune|baseline|preview-aux|attention|generate|evaluate|compare|export|status"
_COMMAND = re.compile(rf"(?<!&& )\bcictl (?:{_IN_A_WORKSPACE})\b(?! -C)")  # what stands behind a cd needs no -C
_COMMON = (UsageError, StateError, BusyError, Interrupted)  # these meet all processes alike, and the first one tells them


@dataclass(frozen=True)
class Session:
    """What a command works with.

    Attributes:
        workspace: the one that was found.
        overrides: of --set, by dotted key.
        mode: how progress is shown.
        verbose: how much of it.
    """

    workspace: Workspace
    overrides: dict[str, Any]
    mode: Mode
    verbose: int

    @contextmanager
    def display(self) -> Iterator[Observer]:
        """Show progress; gives the observer."""
        with show(self.mode, title=self.workspace.root.name, verbose=self.verbose) as observe:
            yield observe

    def work(self, do: Callable[[Observer], Outcome], say: Callable[[Outcome], None]) -> Outcome:
        """Do something while its progress is shown, then print what came of it, by ``say`` or as JSON; gives that."""
        with self.display() as observe:
            outcome = do(observe)
        self.result(outcome, lambda: say(outcome))
        return outcome

    def typed(self, way_on: str) -> str:
        """``way_on`` as it works from where a person is, if it is a command; what else it says stands as it is."""
        return self.workspace.typed(way_on) if way_on.startswith("cictl ") else way_on

    def result(self, outcome: Any, say: Callable[[], None]) -> None:
        """Print the result: as JSON with --json, else by ``say``. Of several processes the first one does."""
        if launched()[0]:
            return
        if self.mode is Mode.json:
            print_outcome(outcome)
        else:
            say()


def open_session(common: Common, **flags: Any) -> Session:
    """Find the workspace and read --set; ``flags`` are keys of ci.yaml that have an option of their own.

    Args:
        flags: values by key, with ``__`` for the dot; None for an option that was not given.
    """
    mode = choose_mode(common.json, common.quiet) if launched()[0] == 0 else Mode.quiet
    workspace, which = find_workspace(common.directory or Path.cwd(), exact=common.directory is not None)
    if which and mode in (Mode.live, Mode.plain):
        print(printable(which, sys.stderr.encoding), file=sys.stderr)
    overrides = parse_overrides(common.assignments or [])
    overrides |= {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    return Session(workspace, overrides, mode, common.verbose)


def print_outcome(outcome: Any) -> None:
    """A dataclass, or a dictionary, as one object on stdout."""
    value = asdict(outcome) if is_dataclass(outcome) and not isinstance(outcome, type) else outcome
    print_json({"event": "Result", **value})


@contextmanager
def exit_codes(common: Common, *, shared: bool = False) -> Iterator[None]:
    """Turn errors into messages and exit codes; with --debug the traceback comes along.

    Args:
        shared: whether several processes that a launcher started can share the work.
    """
    try:
        if launched()[1] > 1 and not shared:
            raise UsageError(
                "this is for one process; invert, finetune, baseline and generate can be shared by several",
                "run it without accelerate launch (and without WORLD_SIZE in the environment)",
                slug="one-process-only",
            )
        with CtrlCRaised(), stops_told(leaving=say):
            yield
    except CictlError as error:
        _fail(error, common)
    except KeyboardInterrupt:  # where nothing waits for the end of a step or of a picture: while libraries load, for example
        _fail(Interrupted(signal.SIGINT, MESSAGE, HINT), common)
    except BrokenPipeError:
        raise typer.Exit(1) from None
    except typer.Exit:
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_full(error):
            _fail(no_room(error), common)
        if isinstance(error, PermissionError) and error.filename:
            _fail(_forbidden(Path(error.filename)), common)
        if problem := library_not_loaded(error):
            _fail(problem, common)
        if common.debug and launched()[1] == 1:
            raise
        unexpected = CictlError(
            f"{type(error).__name__}: {error}".splitlines(),
            "this is a bug of cictl; --debug shows where, and a report with it is welcome",
            slug="unexpected",
        )
        _fail(unexpected, common)


def no_room(error: OSError) -> ResourceError:
    """What is said of ``error`` where nobody has said what was to be written: most likely this program's own output."""
    what = as_typed(Path(error.filename)) if error.filename else "the output"
    return ResourceError(
        f"{what} cannot be written: {error.strerror}",
        "make room, or let the output go elsewhere; then the same command again",
        slug="output-not-written",
    )


def _forbidden(path: Path) -> ResourceError:
    return ResourceError(
        f"{as_typed(path)} cannot be read or written: permission denied",
        f"{how_to_allow(path)}; then the same command again",
        slug="permission-denied",
    )


def _fail(error: CictlError, common: Common) -> NoReturn:
    if common.debug:
        import traceback

        traceback.print_exc()
    if common.directory is not None:
        error.hint = _with_directory(error.hint, common.directory)
    if not (_elsewhere() and isinstance(error, _COMMON)):
        print_error(error, json=common.json)
    leave_at_once(exit_code(error))
    raise typer.Exit(exit_code(error))


def _with_directory(hint: str, directory: Path) -> str:
    """``hint`` with -C in its commands, as it was typed."""
    option = f"-C {quoted(str(directory))}"
    return _COMMAND.sub(lambda found: f"{found[0]} {option}", hint)


def _elsewhere() -> bool:
    """Whether another process than this one shows what all have in common."""
    try:
        return launched()[0] > 0
    except UsageError:  # the environment contradicts itself, which somebody has to say
        return False

"""Every error of cictl, provoked through the command line; ``python -m tests.cli.catalogue --write`` makes docs/errors.md of it.

The cases are in :mod:`tests.cli.error_cases`. Each runs in a folder of its own, in this process, on the tiny base model.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner

import tests.conftest  # noqa: F401 - the environment that the libraries want
from cictl.cli.app import app
from cictl.errors import CictlError, Interrupted
from cictl.ui.report import print_error
from cictl.workflow import finetune, init, invert
from cictl.workspace import Workspace
from tests.hub_server import Hub, serving
from tests.support import quick, silent, write_settings
from tests.tiny import make_base, make_photographs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "errors.md"
WIDTH = 80
NAME = "my-teapot"
_TITLES = {
    0: "", 1: "something failed", 2: "a wrong argument, a wrong ci.yaml, or photographs that cannot be used",
    3: "the workspace is not in the state that the command needs", 4: "the base model cannot be reached, read or used",
    5: "the disk or the memory is full", 75: "another process is writing to this workspace", 143: "a signal ended it",
}  # fmt: skip


@dataclass
class Yard:
    """What the cases begin with, made once: a base model, photographs, a hub, and workspaces in several states."""

    folder: Path
    hub: Hub

    @property
    def base(self) -> Path:
        return self.folder / "models" / "tiny"

    @property
    def photographs(self) -> Path:
        return self.folder / "photographs"

    @classmethod
    @contextmanager
    def built(cls, folder: Path) -> Iterator[Yard]:
        """Make everything below ``folder``; the hub answers until the end of the block."""
        with serving(Hub()) as hub:
            yard = cls(folder, hub)
            make_base(yard.base)
            pictures = make_photographs(yard.photographs)
            hub.add("owner/tiny", yard.base, without=("clip/",))
            new = init.run(folder / "new", model=str(yard.base), images=pictures, name=NAME)
            write_settings(new, quick(yard.base))
            half = Workspace(shutil.copytree(new.root, folder / "half"))
            with suppress(Interrupted), mock.patch("cictl.engine.runtime.graceful_stop", stopped_at_once):
                invert.run(half, silent)
            inverted = Workspace(shutil.copytree(new.root, folder / "inverted"))
            invert.run(inverted, silent)
            trained = Workspace(shutil.copytree(inverted.root, folder / "trained"))
            finetune.run(trained, silent)
            yield yard


@contextmanager
def stopped_at_once(processes: object) -> Iterator[Any]:
    """In the place of :func:`cictl.engine.runtime.graceful_stop`: SIGTERM has come already."""
    from cictl.engine.runtime import StopRequest

    request = StopRequest()
    request.signal_number = signal.SIGTERM
    yield request


@dataclass
class Place:
    """Where one case runs: a home of its own, and what must hold while the command runs."""

    yard: Yard
    home: Path
    stack: ExitStack

    @property
    def root(self) -> Path:
        return self.home / NAME

    def workspace(self, state: str = "new", **changes: Any) -> Workspace:
        """A workspace in a state (new, half, inverted, trained), with changes of ci.yaml (``__`` for the dot)."""
        workspace = Workspace(shutil.copytree(self.yard.folder / state, self.root))
        if changes:
            write_settings(workspace, {key.replace("__", "."): value for key, value in changes.items()})
        return workspace

    def copy_of_base(self) -> Path:
        """A base model to spoil, at ``model`` in the home."""
        return shutil.copytree(self.yard.base, self.home / "model")

    def patch(self, target: str, new: Any, **options: Any) -> None:
        """Let ``target`` be ``new`` while the command runs."""
        self.stack.enter_context(mock.patch(target, new, **options))

    def online(self, endpoint: str | None = None) -> Hub:
        """Let the command reach the hub's stand-in, or an ``endpoint``, with no token; returns the stand-in."""
        from huggingface_hub import constants

        at = endpoint or self.yard.hub.hub
        for name, value in {
            "ENDPOINT": at, "HUGGINGFACE_CO_URL_TEMPLATE": at + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
        }.items():  # fmt: skip
            self.stack.enter_context(mock.patch.object(constants, name, value))
        self.yard.hub.reset()
        return self.yard.hub


Prepare = Callable[[Place], object]


@dataclass(frozen=True)
class Case:
    """One way to an error.

    Attributes:
        slug: of the error.
        what: what was done, as a heading that completes "you see this when".
        typed: the command.
        code: its exit code.
        prepare: makes the folder in which it is typed.
    """

    slug: str
    what: str
    typed: str
    code: int
    prepare: Prepare = field(default=lambda place: place.workspace("trained"))


@dataclass(frozen=True)
class Seen:
    """What a case gave: the exit code, all that was printed, and the error as ``--json`` has it, paths made the same."""

    code: int
    printed: str
    error: dict[str, Any]


def run(case: Case, yard: Yard, folder: Path, *, json_lines: bool) -> Seen:
    """Type the command of ``case`` in a new home below ``folder``."""
    home = folder / f"home{'-json' * json_lines}"
    home.mkdir(parents=True)
    with ExitStack() as stack:
        place = Place(yard, home, stack)
        _isolate(place)
        case.prepare(place)
        stack.enter_context(chdir(home))
        words = shlex.split(case.typed)[1:]
        result = CliRunner().invoke(app, [*words, *(["--json"] if json_lines else [])], prog_name="cictl")
    printed = same_everywhere(result.output, yard, home)
    error = {}
    if json_lines:
        lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        error = next((_plain(line, yard, home) for line in lines if "error" in line), {})
    return Seen(result.exit_code, printed, error)


def rendered(error: dict[str, Any]) -> str:
    """The error as a terminal of 80 columns without colours shows it."""
    terminal = _Terminal()
    shown = CictlError(error["message"].splitlines(), error["hint"], slug=error["slug"])
    environment = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": str(WIDTH)}
    with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "stderr", terminal):
        print_error(shown, json=False)
    return terminal.getvalue().rstrip("\n")


def same_everywhere(text: str, yard: Yard, home: Path) -> str:
    """``text`` without what differs from one machine, or one run, to another."""
    text = text.replace(str(home), "/home/you").replace(str(yard.folder), "/data")
    for pattern, instead in _DIFFERENT:
        text = re.sub(pattern, instead, text)
    return text


def page(cases: Sequence[tuple[Case, Seen]], unprovoked: dict[str, str]) -> str:
    """docs/errors.md."""
    parts = [_PREFACE]
    for slug in dict.fromkeys(sorted(case.slug for case, _ in cases)):
        own = [(case, seen) for case, seen in cases if case.slug == slug]
        code = own[0][0].code
        parts.append(f"## {slug}\n\nExit code {code}: {_TITLES[code]}.")
        for case, seen in own:
            parts.append(f"{case.what}:\n\n```\n$ {case.typed}\n{rendered(seen.error)}\n```")
    listed = "\n".join(f"- `{slug}`: {why}" for slug, why in sorted(unprovoked.items()))
    parts.append(f"## Errors without an example\n\nWhat provokes them cannot be had in a test at a low price:\n\n{listed}")
    return "\n\n".join(parts) + "\n"


def slugs_in_the_source() -> dict[str, list[str]]:
    """Every slug that an error is given in ``cictl/``, with the places."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "cictl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "slug" and isinstance(node.value, ast.Constant):
                found.setdefault(node.value.value, []).append(f"{path.relative_to(ROOT)}:{node.value.lineno}")
    return found


def main() -> None:
    """Write docs/errors.md, or print it."""
    from tests.cli.error_cases import CASES, UNPROVOKED

    with tempfile.TemporaryDirectory() as name, Yard.built(Path(name) / "yard") as yard:
        seen = [(case, run(case, yard, Path(name) / str(index), json_lines=True)) for index, case in enumerate(CASES)]
        text = page(seen, UNPROVOKED)
    if "--write" in sys.argv[1:]:
        PAGE.write_text(text, "utf-8")
    else:
        sys.stdout.write(text)


_PREFACE = """# Errors

Every error that cictl ends with: what was typed, what a terminal of 80 columns shows (without its colours), and the exit
code. The heading is the *slug*, which `--json` gives and which stays the same when the words change:

```
$ cictl generate "a cat" --json
{"event": "Error", "error": "usage", "slug": "prompt-without-concept", "message": "...", "hint": "...", "exit_code": 2}
```

The line with an arrow is what to do. Off a terminal, message and hint are each on one line, however long. In the examples
`/home/you` is where the command was typed. This page is made by `python -m tests.cli.catalogue --write`, from the cases in
`tests/cli/error_cases.py`, and a test holds it against what the commands say."""

_DIFFERENT = (
    (r"127\.0\.0\.1(:\d+)?", "huggingface.co"),
    (r"\b[0-9a-f]{22}\.\.\.[0-9a-f]{22}\b", "0123456789abcdef012345...6789abcdef0123456789ab"),
    (r"\b[0-9a-f]{12,64}\b", "0123456789ab"),
    (r"(-seed\d+-)[0-9a-f]{8}\b", r"\g<1>0123abcd"),
    (r"\(process \d+ on [^,]+, since [\d:]+\)", "(process 4711 on your-computer, since 12:34:56)"),
    (r"[\d,.]+ MiB free", "0.0 MiB free"),
    (re.escape(sys.executable), "/home/you/cictl/.venv/bin/python"),
    (r"peft \d[\w.]* with transformers \d[\w.]*", "peft 0.17.0 with transformers 5.6.0"),
)


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _plain(line: dict[str, Any], yard: Yard, home: Path) -> dict[str, Any]:
    return {key: same_everywhere(value, yard, home) if isinstance(value, str) else value for key, value in line.items()}


def _isolate(place: Place) -> None:
    """No hub, no token, an empty cache, no waiting, and the signal handlers as they were."""
    from huggingface_hub import constants

    from cictl.models import hub_transfer

    for name, value in {
        "HF_HUB_OFFLINE": True, "HF_HUB_CACHE": str(place.home / ".cache" / "hub"), "HF_TOKEN_PATH": str(place.home / "token"),
    }.items():  # fmt: skip
        place.stack.enter_context(mock.patch.object(constants, name, value))
    place.stack.enter_context(mock.patch.dict(os.environ))
    os.environ.pop("HF_TOKEN", None)
    place.stack.enter_context(mock.patch.object(hub_transfer.time, "sleep", lambda seconds: None))
    for number in (signal.SIGINT, signal.SIGTERM):
        place.stack.callback(signal.signal, number, signal.getsignal(number))


if __name__ == "__main__":
    main()

"""The command line: `cictl --help`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import cictl
from cictl.cli import (
    attention,
    baseline,
    check,
    compare,
    demo,
    evaluate,
    export,
    finetune,
    generate,
    init,
    invert,
    preview_aux,
    status,
)
from cictl.cli.options import flags
from cictl.cli.session import no_room
from cictl.data.prompts import in_quotes
from cictl.errors import CictlError, UsageError
from cictl.files import is_full
from cictl.ui.report import print_error

_MODULES = {
    "init": init,
    "check": check,
    "invert": invert,
    "finetune": finetune,
    "baseline": baseline,
    "preview-aux": preview_aux,
    "attention": attention,
    "generate": generate,
    "evaluate": evaluate,
    "compare": compare,
    "export": export,
    "status": status,
    "demo": demo,
}
_PLAINLY = {
    "Input should be a valid integer, unable to parse string as an integer": "it must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "it must be a number",
}
_COMPLETION = ("--install-completion", "--show-completion")
_MORE = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)", re.S)


class Commands(TyperGroup):
    """All commands; a command line that typer refuses is said as every other error is."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> NoReturn:
        """Run what ``args`` name, and exit with its code."""
        typed = sys.argv[1:] if args is None else list(args)
        if not typed:
            super().main(args, *others, **options)  # shows the help
        try:
            _require_completable(typed)
            code = super().main(args, *others, **{**options, "standalone_mode": False})
        except typer.TyperException as refused:
            _end_with(_refusal(refused, typed), typed)
        except UsageError as error:
            _end_with(error, typed)
        except OSError as error:  # of what the library says itself, such as the help
            if not is_full(error):
                raise
            _end_with(no_room(error), typed)
        sys.exit(code or 0)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Each command with its first sentence, which typer would cut to a line."""
        rows = [(name, command.get_short_help_str(1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _end_with(error: CictlError, typed: Sequence[str]) -> NoReturn:
    print_error(error, json="--json" in typed)
    sys.exit(error.exit_code)


def _require_completable(typed: Sequence[str]) -> None:
    """A shell completes a command that has a name of its own, which a module has not."""
    if typed[0] in _COMPLETION and Path(sys.argv[0]).name == "__main__.py":
        raise UsageError(
            "a shell completes the command cictl, and not python -m cictl",
            "cictl --install-completion, once the command is installed (pip install .) and its folder on PATH",
            slug="completion-of-a-module",
        )


def _refusal(refused: typer.TyperException, typed: Sequence[str]) -> UsageError:
    message, context = refused.format_message().replace("Value error, ", ""), getattr(refused, "ctx", None)
    for said, plainly in _PLAINLY.items():
        message = message.replace(said, plainly)
    message = message.replace("\n\t", " ")  # what there is to choose from comes in lines of its own
    named = next((word for word in typed if word in _MODULES), "")
    command = context.command_path if context else f"cictl {named}".rstrip()
    hint = f"{command} --help shows what it takes"
    prompt, more = (context.params.get("prompt") if context else None), _MORE.fullmatch(message)
    if prompt and more:
        hint = f"a prompt of several words stands in quotes: {command} {in_quotes(f'{prompt} {more[1]}')}"
    if typed[0].partition("=")[0] in flags():
        at = typed.index(named) if named else len(typed)
        hint = f"it stands behind the command, as in: cictl {shlex.join([named or 'status', *typed[:at]])}"
    return UsageError(message[:1].lower() + message[1:].rstrip("."), hint, slug="command-line")


app = typer.Typer(
    name="cictl",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"cictl {cictl.__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Learn what three to six photographs share, as a token S*, and generate new pictures of it.

    No captions, no masks, no class words.

    \b
    cictl init my-teapot             then put photographs into my-teapot/images/
    cictl invert && cictl finetune   learn S*
    cictl generate "a cube-shaped S* in the snow"
    cictl export                     for ComfyUI and A1111

    Nothing at hand? `cictl demo` shows all of it in about a minute, without a GPU.
    """


for name, module in _MODULES.items():
    app.command(name)(module.command)


def main() -> None:
    """The entry point: exits with the command's code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a prompt may hold what a Windows code page cannot show
            stream.reconfigure(errors="replace")
    app()

"""The flags that commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cictl.files import is_text


@dataclass(frozen=True)
class Common:
    """What can be said to most commands, behind what is their own."""

    directory: Annotated[
        Path | None,
        typer.Option("-C", "--directory", metavar="DIR", help="The workspace, if it is not here.", show_default=False),
    ] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a key of ci.yaml for this run (a training keeps it until --restart); may be repeated.",
            show_default=False,
        ),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Results as JSON on stdout; while training a line per event.")] = False
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show warnings and results only.")] = False
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, metavar="", help="Show more.", show_default=False)] = 0
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False


def flags() -> set[str]:
    """How all of them can be typed."""
    options = [option for hint in get_type_hints(Common, include_extras=True).values() for option in hint.__metadata__]
    return {flag for option in options for flag in (option.default, *option.param_decls)}  # typer's first is called default


def read_folder(text: str) -> Path:
    """A folder that is to be made; an empty name, which would be the folder one is in, comes from a variable that is not set."""
    if not text:
        raise typer.BadParameter("it is empty")
    return Path(text)


def read_text(text: str) -> str:
    """A prompt, which a tokenizer is to read, or what ci.yaml is to hold; not bytes of another encoding."""
    if not is_text(text):
        raise typer.BadParameter(f"{text!r} is not text in UTF-8")
    return text


def takes_common(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of :class:`Common`, and what was said to them as its first argument.

    Args:
        names: the fields that the command takes; none are all.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = inspect.signature(Common, eval_str=True).parameters
        taken = {name: field for name, field in fields.items() if name in (names or fields)}
        own = inspect.signature(command, eval_str=True)

        @wraps(command)
        def with_common(**given: Any) -> None:
            common = Common(**{name: given.pop(name) for name in taken})
            command(common, **given)

        parameters = [*list(own.parameters.values())[1:], *taken.values()]
        with_common.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return with_common

    return decorate


PromptSetOption = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="SET", show_default=False,
        help="dreambench-object, dreambench-live, object, style, pose, or a text file with a prompt a line. Default: by "
        "concept.kind.",
    ),
]  # fmt: skip
PicturesOption = Annotated[
    int | None, typer.Option("-n", metavar="N", help="Pictures a prompt. Default: evaluate.count.", show_default=False)
]
NounOption = Annotated[
    str | None, typer.Option("--noun", metavar="WORD", help="What S* is. Default: evaluate.noun.", show_default=False)
]
StepOption = Annotated[
    int | None,
    typer.Option(
        "--step", metavar="N", help="What that stage had learned after N steps, if it is kept. Default: its last.",
        show_default=False,
    ),
]  # fmt: skip
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="First seed. Default: seed.", show_default=False)]

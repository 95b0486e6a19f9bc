"""`cictl attention`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cictl.cli.options import (
    DebugOption,
    DirectoryOption,
    JsonOption,
    QuietOption,
    SetOption,
    VerboseOption,
    exit_codes,
    open_session,
)
from cictl.ui.report import print_result


class Source(StrEnum):
    """Whose weights look."""

    invert = "invert"
    finetune = "finetune"


def command(
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to draw, with S* in it. Default: preview.prompt.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Pictures of the prompt.")] = 1,
    seed: Annotated[int | None, typer.Option(metavar="N", help="First seed. Default: seed.", show_default=False)] = None,
    source: Annotated[
        Source, typer.Option("--stage", help="invert: as the A* were trained; finetune: with the tuned keys and values.")
    ] = Source.invert,
    directory: DirectoryOption = None,
    assignments: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    debug: DebugOption = False,
) -> None:
    """Show where S* and each auxiliary token look, on one sheet.

    Heat maps of the cross-attention over each photograph and over a picture of PROMPT. S* should lie on what the
    photographs share, and each A* on the rest of its own photograph.

    \b
    cictl attention
    cictl attention "a photo of S* in the snow" -n 2
    cictl attention --stage finetune
    """
    with exit_codes(json=json, debug=debug):
        from cictl.workflow import attention

        session = open_session(directory, assignments, json, quiet, verbose, seed=seed)
        with session.display() as observe:
            outcome = attention.run(
                session.workspace, prompt, observe, overrides=session.overrides, source=source.value, count=count
            )

        def say() -> None:
            if outcome.kept:
                print_result("already done: the sheet is there")
            print_result(f"the sheet: {outcome.sheet}")

        session.result(outcome, say)

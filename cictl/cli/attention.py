"""`cictl attention`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cictl.cli.options import Common, SeedOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.report import print_result


class Source(StrEnum):
    """Whose weights look."""

    invert = "invert"
    finetune = "finetune"


@takes_common()
def command(
    common: Common,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to draw, with S* in it. Default: preview.prompt.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Pictures of the prompt.")] = 1,
    seed: SeedOption = None,
    source: Annotated[
        Source, typer.Option("--stage", help="invert: as the A* were trained; finetune: with the tuned keys and values.")
    ] = Source.invert,
) -> None:
    """Show where S* and each auxiliary token look, on one sheet.

    Heat maps of the cross-attention over each photograph and over a picture of PROMPT. S* should lie on what the
    photographs share, and each A* on the rest of its own photograph.

    \b
    cictl attention
    cictl attention "a photo of S* in the snow" -n 2
    cictl attention --stage finetune
    """
    with exit_codes(common):
        from cictl.workflow import attention

        session = open_session(common, seed=seed)
        with session.display() as observe:
            outcome = attention.run(
                session.workspace, prompt, observe, overrides=session.overrides, source=source.value, count=count
            )

        def say() -> None:
            if outcome.kept:
                print_result("already done: the sheet is there")
            print_result(f"the sheet: {outcome.sheet}")

        session.result(outcome, say)

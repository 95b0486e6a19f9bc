"""`cictl attention`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cictl.cli.options import Common, DryRunOption, SeedOption, read_text, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.formats import pictures
from cictl.ui.report import print_result, print_text

if TYPE_CHECKING:
    from cictl.workflow.attention import AttentionOutcome
    from cictl.workflow.foreseen_pictures import ForeseenAttention


class Source(StrEnum):
    """Whose weights look."""

    invert = "invert"
    finetune = "finetune"


@takes_common()
def command(
    common: Common,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            parser=read_text,
            show_default=False,
            help="What to draw, with S* in it. Default: preview.prompt.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Pictures of the prompt.")] = 1,
    seed: SeedOption = None,
    source: Annotated[
        Source, typer.Option("--stage", help="invert: as the A* were trained; finetune: with the tuned keys and values.")
    ] = Source.invert,
    dry_run: DryRunOption = False,
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
        from cictl.workflow import attention, foreseen_pictures

        session = open_session(common, seed=seed)
        arguments: dict[str, Any] = {"overrides": session.overrides, "source": source.value, "count": count}
        if dry_run:
            session.work(partial(foreseen_pictures.foresee_attention, session.workspace, prompt, **arguments), _say_foreseen)
        else:
            session.work(partial(attention.run, session.workspace, prompt, **arguments), _say)


def _say(outcome: AttentionOutcome) -> None:
    if outcome.kept:
        print_result("already done: the sheet is there")
    print_result(f"the sheet: {outcome.sheet}")


def _say_foreseen(would: ForeseenAttention) -> None:
    if would.kept:
        print_text("already done: the sheet is there; nothing would be drawn")
    else:
        print_text(f"would look at {would.photographs} photographs and draw {pictures(would.pictures)}")
    if would.sheet:
        print_result(f"the sheet: {would.sheet}")

"""`cictl preview-aux`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cictl.cli.options import Common, DryRunOption, SeedOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.formats import all_there, would_draw
from cictl.ui.report import print_result, print_text

if TYPE_CHECKING:
    from cictl.workflow.foreseen_pictures import ForeseenPreview


@takes_common()
def command(
    common: Common,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="Pictures a token. Default: generate.count.", show_default=False)
    ] = None,
    seed: SeedOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Show what each auxiliary token holds, on one sheet.

    Each photograph stands above what its own token gives. Backgrounds and companions should appear there, and the
    shared thing in the row of S* only.

    \b
    cictl preview-aux
    cictl preview-aux -n 2 --seed 7
    """
    with exit_codes(common):
        from cictl.workflow import foreseen_pictures, preview_aux

        session = open_session(common, generate__count=count, seed=seed)
        if dry_run:
            foresee = partial(foreseen_pictures.foresee_preview, session.workspace, overrides=session.overrides)
            session.work(foresee, _say_foreseen)
        else:
            draw = partial(preview_aux.run, session.workspace, overrides=session.overrides)
            session.work(draw, lambda outcome: print_result(f"the sheet: {outcome.sheet}"))


def _say_foreseen(would: ForeseenPreview) -> None:
    made_of_them = f"{all_there(would.pictures)}; the sheet would be made of them"
    print_text(made_of_them if would.kept == would.pictures else would_draw(would.pictures, would.kept))
    if would.sheet:
        print_result(f"the sheet: {would.sheet}")

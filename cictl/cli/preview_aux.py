"""`cictl preview-aux`."""

from __future__ import annotations

from typing import Annotated

import typer

from cictl.cli.options import Common, SeedOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.report import print_result


@takes_common()
def command(
    common: Common,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="Pictures a token. Default: generate.count.", show_default=False)
    ] = None,
    seed: SeedOption = None,
) -> None:
    """Show what each auxiliary token holds, on one sheet.

    Each photograph stands above what its own token gives. Backgrounds and companions should appear there, and the
    shared thing in the row of S* only.

    \b
    cictl preview-aux
    cictl preview-aux -n 2 --seed 7
    """
    with exit_codes(common):
        from cictl.workflow import preview_aux

        session = open_session(common, generate__count=count, seed=seed)
        with session.display() as observe:
            outcome = preview_aux.run(session.workspace, observe, overrides=session.overrides)
        session.result(outcome, lambda: print_result(f"the sheet: {outcome.sheet}"))

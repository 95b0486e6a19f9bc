"""`cictl preview-aux`."""

from __future__ import annotations

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


def command(
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="Pictures a token. Default: generate.count.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="First seed. Default: seed.", show_default=False)] = None,
    directory: DirectoryOption = None,
    assignments: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    debug: DebugOption = False,
) -> None:
    """Show what each auxiliary token holds, on one sheet.

    Each photograph stands above what its own token gives. Backgrounds and companions should appear there, and the
    shared thing in the row of S* only.

    \b
    cictl preview-aux
    cictl preview-aux -n 2 --seed 7
    """
    with exit_codes(json=json, debug=debug):
        from cictl.workflow import preview_aux

        session = open_session(directory, assignments, json, quiet, verbose, generate__count=count, seed=seed)
        with session.display() as observe:
            outcome = preview_aux.run(session.workspace, observe, overrides=session.overrides)
        session.result(outcome, lambda: print_result(f"the sheet: {outcome.sheet}"))

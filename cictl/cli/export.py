"""`cictl export`."""

from __future__ import annotations

from pathlib import Path
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
    format_name: Annotated[str, typer.Option("--format", metavar="NAME", help="safetensors.")] = "safetensors",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder. Default: outputs/export/.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
    directory: DirectoryOption = None,
    assignments: SetOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
    debug: DebugOption = False,
) -> None:
    """Write files that ComfyUI and A1111 load.

    The embedding of S*, and the exact changes of K and V.

    \b
    cictl export
    cictl export --format safetensors --out ~/exports
    """
    with exit_codes(json=json, debug=debug):
        from cictl.workflow import export

        session = open_session(directory, assignments, json, quiet, verbose)
        with session.display() as observe:
            outcome = export.run(
                session.workspace, observe, format_name=format_name, out=out, force=force, overrides=session.overrides
            )

        def say() -> None:
            if outcome.already_done:
                print_result("already done: the files are there, and equal")
            for file in outcome.files:
                print_result(f"{file['path']}  {_size(file['bytes'])}")
            print_result("what to type:")
            for program, text in outcome.usage.items():
                print_result(f"  {program}: {text}")

        session.result(outcome, say)


def _size(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"

"""`cictl export`."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cictl.cli.options import Common, StepOption, takes_common
from cictl.cli.session import exit_codes, open_session, print_outcome
from cictl.errors import StateError, UsageError
from cictl.exporters.origin import described
from cictl.exporters.registry import FORMATS
from cictl.sizes import size_in_words
from cictl.ui.report import Listing, print_result, stdout_console

if TYPE_CHECKING:
    from cictl.workflow.export import ExportOutcome


class Source(StrEnum):
    """What is exported."""

    finetune = "finetune"
    invert = "invert"


class Precision(StrEnum):
    """In what the numbers are stored."""

    fp16 = "fp16"
    bf16 = "bf16"
    fp32 = "fp32"


@takes_common()
def command(
    common: Common,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Which; --list shows them. May be repeated. Default: safetensors.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All formats.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show the formats.")] = False,
    source: Annotated[
        Source | None, typer.Option("--stage", help="Default: the furthest stage that was trained.", show_default=False)
    ] = None,
    step: StepOption = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder. Default: outputs/export/.", show_default=False)] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The word to type. Default: concept.name.", show_default=False)
    ] = None,
    rank: Annotated[str, typer.Option(metavar="R|auto", help="Of LoRAs; auto keeps 99% of each change's energy.")] = "auto",
    dtype: Annotated[Precision, typer.Option(help="In what weights are stored.")] = Precision.fp32,
    force: Annotated[bool, typer.Option("--force", help="Replace files that hold something else.")] = False,
) -> None:
    """Write files that ComfyUI, A1111, Forge and diffusers load.

    The embedding of S*, and what training made of K and V: as changes, as a LoRA, or in a whole model.

    \b
    cictl export
    cictl export --format lora --rank 16 --dtype fp16
    cictl export --all --out ~/exports
    cictl export --list
    """
    with exit_codes(common):
        if listing:
            _list(common.json)
            return
        from cictl.workflow import export

        session = open_session(common)
        write = partial(
            export.run,
            session.workspace,
            formats=formats or (),
            every=every,
            stage=source.value if source else None,
            step=step,
            out=out,
            name=name,
            rank=_rank(rank),
            dtype=dtype.value,
            force=force,
            overrides=session.overrides,
        )
        outcome = session.work(write, _say)
        if outcome.in_the_way:
            raise StateError(
                [f"{one} was not exported: {why}" for one, why in outcome.in_the_way.items()],
                "the same command with --force replaces it; --out writes elsewhere",
                slug="exports-exist",
            )


def _say(outcome: ExportOutcome) -> None:
    if outcome.already_done:
        print_result("already done: the files are there, and equal")
    print_result(f"stage: {described({'stage': outcome.stage, 'step': outcome.step})}")
    for file in outcome.files:
        print_result(f"{file['path']}  {size_in_words(file['bytes'], decimals=1)}")
    for one, why in outcome.left_out.items():
        print_result(f"left out: {one}: {why}")
    for one, notes in outcome.notes.items():
        print_result(*(f"{one}: {note}" for note in notes))
    for one, usage in outcome.usage.items():
        print_result(f"what to type ({one}):" if len(outcome.usage) > 1 else "what to type:")
        for program, text in usage.items():
            _say_usage(program, text)


def _say_usage(program: str, text: str) -> None:
    if "\n" in text:
        print_result(f"  {program}:", *(f"    {line}" if line else "" for line in text.splitlines()))
    else:
        print_result(f"  {program}: {text}")


def _list(json: bool) -> None:
    columns = ("name", "holds", "read by", "form", "size on SD 1.5")
    rows = [(one.name, one.holds, one.readers, one.fidelity, one.size) for one in FORMATS]
    if json:
        keys = ("name", "holds", "read_by", "form", "size_on_sd15")
        print_outcome({"formats": [dict(zip(keys, row, strict=True)) for row in rows]})
        return
    table = Listing(columns, rows)
    if table.width <= stdout_console().width:
        print_result(table)
        return
    for name, holds, readers, form, size in rows:  # a table of folded cells would be hard to read
        print_result(f"{name}  {form}, {size}", f"  {holds}", f"  read by {readers}")
    print_result("sizes are those on Stable Diffusion 1.5")


def _rank(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--rank {text} is no rank", "a whole number from 1 on, or auto", slug="rank-not-a-number")
    return int(text)

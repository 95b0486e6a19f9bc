"""`cictl init`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cictl.cli.options import Common, read_folder, read_text, takes_common
from cictl.cli.session import exit_codes, print_outcome
from cictl.data.copying import left_out
from cictl.data.photographs import FEWEST, list_files
from cictl.errors import UsageError
from cictl.ui.report import print_result, print_text
from cictl.workflow import init


class Kind(StrEnum):
    """What photographs can share."""

    object = "object"
    style = "style"
    pose = "pose"


@takes_common("json", "debug")
def command(
    common: Common,
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=read_folder, help="The folder to make.")],
    more_images: Annotated[list[Path] | None, typer.Argument(metavar="--images PATH", hidden=True)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="ID|FOLDER|FILE|toybox",
            parser=read_text,
            help="Base model. Default: Stable Diffusion 1.5.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH...", help="Photographs, or a folder of them, to copy in.", show_default=False),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="What the photographs share; it chooses the prompts.")] = Kind.object,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the concept. Default: the folder's.", show_default=False)
    ] = None,
) -> None:
    """Make a workspace: images/, ci.yaml, checkpoints/, outputs/.

    \b
    cictl init my-teapot
    cictl init my-teapot --images ~/photos/teapot/*.jpg
    cictl init line-art --kind style
    """
    with exit_codes(common):
        if more_images and not images:
            raise UsageError(
                f"there is one folder too many: {more_images[0]}", "photographs come behind --images", slug="init-stray-argument"
            )
        # A shell turns `--images photos/*.jpg` into one option and many arguments.
        images = [*(images or []), *(more_images or [])]
        workspace = init.run(folder, model=model, images=images, kind=kind, name=name)
        passed_over = left_out(images)
        shown = workspace.shown(workspace.root)
        if common.json:
            print_outcome({"workspace": str(workspace.root), "left_out": passed_over})
            return
        print_result(f"made the workspace {shown}")
        place, count = workspace.shown(workspace.images), len(list_files(workspace.images))
        if passed_over:
            print_text(f"left out, in formats or with names that are not read: {', '.join(passed_over)}")
            print_text(f"save them as JPEG or PNG, and put them into {place}")
        if count < FEWEST:
            then = workspace.typed("cictl invert")
            wanted = "more photographs, three to six in all," if count else "three to six photographs"
            print_result(f"next: put {wanted} into {place}, then: {then}")
        else:
            print_result(f"next: {workspace.typed('cictl invert && cictl finetune')}")

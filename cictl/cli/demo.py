"""`cictl demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cictl.cli.options import Common, read_folder, takes_common
from cictl.cli.session import exit_codes, print_outcome
from cictl.cli.training import say_outcome
from cictl.data.prompts import in_quotes
from cictl.files import quoted
from cictl.ui.display import choose_mode, show
from cictl.ui.report import print_result

if TYPE_CHECKING:
    from cictl.workflow.demo import DemoOutcome


@takes_common("json", "quiet", "verbose", "debug")
def command(
    common: Common,
    folder: Annotated[Path, typer.Argument(metavar="DIR", parser=read_folder, help="The folder to make.")] = Path("cictl-demo"),
) -> None:
    """Show the whole path on a small embedded model.

    No GPU, no download, about a minute on two cores. Draws five pictures of a dotted teapot, runs invert, finetune and
    generate on them, and puts the photographs and the results on one sheet.

    \b
    cictl demo
    cictl demo /tmp/demo
    """
    with exit_codes(common):
        from cictl.workflow import demo, finetune, generate, invert

        mode = choose_mode(common.json, common.quiet)
        workspace = demo.prepare(folder)
        where = workspace.shown(workspace.root)
        say = (lambda text: None) if common.json or common.quiet else print_result
        typed = quoted(where)
        say(f"the workspace {where} has five pictures of a teapot that the embedded model never saw")
        say(f"$ cictl invert -C {typed}")
        with show(mode, title=workspace.root.name, verbose=common.verbose) as observe:
            trained = invert.run(workspace, observe)
        if not common.json:
            say_outcome(trained, "cictl finetune")
        say(f"$ cictl finetune -C {typed}")
        with show(mode, title=workspace.root.name, verbose=common.verbose) as observe:
            trained = finetune.run(workspace, observe)
        if not common.json:
            say_outcome(trained, "cictl generate")
        say(f"$ cictl generate -C {typed} {' '.join(map(in_quotes, demo.PROMPTS))}")
        with show(mode, title=workspace.root.name, verbose=common.verbose) as observe:
            made = generate.run(workspace, demo.PROMPTS, observe, overrides={"generate.count": demo.COUNT})
        outcome = demo.write_sheet(workspace, [Path(picture["path"]) for picture in made.pictures])
        if common.json:
            print_outcome(outcome)
            return
        print_result(
            "",
            f"the sheet: {outcome.sheet}",
            "",
            *_reading(outcome),
            "",
            "what else it can do:",
            f"  cictl preview-aux -C {typed}         what each photograph has of its own",
            f"  cictl export -C {typed}              for ComfyUI and A1111",
            "with your own photographs, on a GPU:",
            "  cictl init my-thing --images PHOTOGRAPHS",
            "  cd my-thing && cictl invert && cictl finetune",
        )


def _reading(outcome: DemoOutcome) -> list[str]:
    """What the judge reads, a line a prompt, and how far it can be trusted."""

    def counts(found: dict[str, int], of: int) -> str:
        return ", ".join(f"{value} {count}/{of}" for value, count in found.items())

    lines = ["a small classifier, which no training of S* has seen, reads in these pictures:"]
    for own in outcome.judged:
        lines.append(f"  {own.prompt}")
        lines.append(f"    asked for: {counts(own.asked, own.count)};  kept: {counts(own.kept, own.count)}")
    shares = outcome.reliability
    mean, worst = sum(shares.values()) / len(shares), min(shares, key=lambda name: shares[name])
    lines.append(f"  (of pictures whose truth is known it reads {mean:.0%} right; {worst} worst, {shares[worst]:.0%})")
    return lines

"""`cictl generate`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cictl.cli.options import Common, DryRunOption, StepOption, read_text, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.data.prompts import in_quotes, mentions_concept, one_prompt, read_prompts
from cictl.errors import CictlError, UsageError
from cictl.events import Observer, Warned
from cictl.placeholders import CONCEPT
from cictl.ui.formats import all_there, rough_duration, would_draw
from cictl.ui.report import print_facts, print_result, print_text

if TYPE_CHECKING:
    from cictl.workflow.foreseen_pictures import ForeseenPictures
    from cictl.workflow.generate import GenerateOutcome


class Sampler(StrEnum):
    """How noise becomes a picture."""

    ddim = "ddim"
    dpmpp = "dpm++"
    euler = "euler"
    unipc = "unipc"


class Source(StrEnum):
    """Which weights draw."""

    finetune = "finetune"
    invert = "invert"
    textual_inversion = "textual-inversion"
    dreambooth = "dreambooth"
    custom_diffusion = "custom-diffusion"
    disenbooth = "disenbooth"
    base = "base"


StageOption = Annotated[
    Source | None, typer.Option("--stage", help="Default: the furthest stage that was trained.", show_default=False)
]


@takes_common()
def command(
    common: Common,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", parser=read_text, help="What to draw, with S* in it; in quotes.", show_default=False),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", metavar="N", help="Pictures a prompt. Default: generate.count.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="First seed; the next pictures take the next ones. Default: seed.", show_default=False),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Denoising steps. Default: generate.steps.", show_default=False)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="X", help="Classifier-free guidance; 1 is none. Default: generate.guidance.", show_default=False),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="How much of what training changed in the UNet draws; less obeys the prompt more. Default: generate.strength.",
            show_default=False,
        ),
    ] = None,
    avoid: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Lead away from what only single photographs show, such as backgrounds; try 0.5. Default: generate.avoid.",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[Sampler | None, typer.Option(help="Default: generate.sampler.", show_default=False)] = None,
    negative: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="What not to draw. Default: generate.negative.", show_default=False)
    ] = None,
    width: Annotated[int | None, typer.Option(metavar="PIXELS", help="Default: generate.width.", show_default=False)] = None,
    height: Annotated[int | None, typer.Option(metavar="PIXELS", help="Default: generate.height.", show_default=False)] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="A file with a prompt a line; one that begins with # is a comment.",
            show_default=False,
        ),
    ] = None,
    source: StageOption = None,
    step: StepOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures. Default: outputs/.", show_default=False)
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also write one sheet, a row a prompt.")] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Do not write prompt and settings into the pictures.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Generate pictures of prompts with S*.

    The same seed gives the same picture; what lies on the disk already is not made again.

    \b
    cictl generate "a cube-shaped S*"
    cictl generate "S* in the snow" "a sketch of S*" -n 8 --grid
    cictl generate --prompts prompts.txt --sampler dpm++ --steps 25
    cictl generate "a photo of S* in a kitchen" --avoid 0.5
    cictl generate "S* in the snow" -n 100 --dry-run
    """
    with exit_codes(common, shared=True):
        from cictl.workflow import foreseen_pictures, generate

        session = open_session(
            common,
            generate__count=count,
            seed=seed,
            generate__steps=steps,
            generate__guidance=guidance,
            generate__strength=strength,
            generate__avoid=avoid,
            generate__sampler=sampler.value if sampler else None,
            generate__negative=negative,
            generate__width=width,
            generate__height=height,
        )
        every = [*(prompts or []), *(read_prompts(prompts_file) if prompts_file else [])]
        arguments: dict[str, Any] = {
            "overrides": session.overrides,
            "source": source.value if source else None,
            "step": step,
            "out": out,
            "grid": grid,
        }

        def foresee(observe: Observer) -> ForeseenPictures:
            _require_quotes(prompts or [], source, observe)
            return foreseen_pictures.foresee_pictures(session.workspace, every, observe, **arguments)

        def draw(observe: Observer) -> GenerateOutcome:
            _require_quotes(prompts or [], source, observe)
            return generate.run(session.workspace, every, observe, metadata=not no_metadata, **arguments)

        if dry_run:
            session.work(foresee, _say_foreseen)
        else:
            _require_one_to_see(session.work(draw, _say))


def _say(outcome: GenerateOutcome) -> None:
    total = len(outcome.pictures)
    if outcome.kept == total:
        print_result(f"already done: {all_there(total)}")
    for picture in outcome.pictures:
        print_result(picture["path"])
    if outcome.grid:
        print_result(f"the grid: {outcome.grid}")


def _say_foreseen(would: ForeseenPictures) -> None:
    done = would.kept == would.count
    print_text(f"already done: {all_there(would.count)}" if done else would_draw(would.count, would.kept))
    fetched = "" if would.base["identity"] else ", which is still to be downloaded"
    trained = f" after {would.steps} steps" if would.steps else ""
    print_facts({"stage": f"{would.stage}{trained}, on {would.base['id']}{fetched}", "drawn": _drawn_with(would)})
    if would.estimate:
        print_facts({"takes": f"about {rough_duration(would.estimate.seconds)} on {would.estimate.device}"})
        print_text(f"({would.estimate.method})", " " * 10)
    for picture in would.pictures or []:
        print_result(picture["path"] + ("  (there already)" if picture["kept"] and not done else ""))
    if would.grid:
        print_result(f"the grid: {would.grid}")


def _drawn_with(would: ForeseenPictures) -> str:
    from cictl.workflow.drawing import ways_to_draw

    (width, height), sampling = would.size, would.sampling
    steps = "1 step" if sampling["steps"] == 1 else f"{sampling['steps']} steps"
    facts = [
        f"{width} x {height} pixels",
        f"{steps} of {sampling['sampler']}",
        f"guidance {sampling['guidance']:g}",
    ]
    return ", ".join([*facts, *ways_to_draw(sampling), f"at most {would.batch_size} at a time"])


def _require_one_to_see(outcome: GenerateOutcome) -> None:
    total = len(outcome.pictures)
    if outcome.blanked and len(outcome.blanked) == total:
        raise CictlError(
            f"the base model's safety checker blanked {'the picture' if total == 1 else f'all {total} pictures'}",
            "try another prompt or another --seed; --set generate.safety_checker=off draws without it",
            slug="pictures-all-blanked",
        )


def _require_quotes(prompts: Sequence[str], source: Source | None, observe: Observer) -> None:
    """Refuse the words of a prompt that was typed without quotes; on the untouched base, where each may be meant, only say so."""
    whole = one_prompt(prompts)
    if source is Source.base and whole:
        observe(Warned(f"{len(prompts)} prompts of one word each; in quotes they are one: cictl generate {in_quotes(whole)}"))
    elif source is not Source.base and len(prompts) > 1:
        for word in prompts:
            if len(word.split()) == 1 and not mentions_concept(word):
                example = whole if mentions_concept(whole) else f"a photo of {CONCEPT} in the snow"
                raise UsageError(
                    f"{word!r} alone is one of {len(prompts)} prompts, so that the quotes around a prompt are probably missing",
                    f"cictl generate {in_quotes(example)}\n"
                    f"unquoted, a shell may also put names of files in the place of {CONCEPT}",
                    slug="prompt-without-quotes",
                )

"""`cictl evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cictl.cli.generate import StageOption
from cictl.cli.options import Common, DryRunOption, PicturesOption, PromptSetOption, SeedOption, StepOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.formats import pictures, would_draw
from cictl.ui.report import print_facts, print_result, print_text
from cictl.ui.scores import ScoreTable

if TYPE_CHECKING:
    from cictl.workflow.evaluate import EvaluateOutcome
    from cictl.workflow.foreseen_pictures import ForeseenEvaluation
    from cictl.workflow.results import Results


@takes_common()
def command(
    common: Common,
    prompts: PromptSetOption = None,
    count: PicturesOption = None,
    noun: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="What S* is, for CLIP's reading of a prompt alone. Default: S* is left out.", show_default=False
        ),
    ] = None,
    seed: SeedOption = None,
    source: StageOption = None,
    step: StepOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default=False,
            help="Folder of the results. Default: outputs/evaluation/, and for another stage or step than the last one a folder "
            "in it, such as invert/ or step-0000300/.",
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Measure how well S* keeps what the photographs share, and how well prompts still work.

    DINOv2 and CLIP-I compare pictures with the photographs, CLIP-T with their prompts. The same seeds are drawn for every
    stage. Needs DINOv2 and CLIP from the hub; on the toybox CLIP and a judge that ship with it.

    \b
    cictl evaluate
    cictl evaluate --prompts dreambench-object --noun teapot
    cictl evaluate --stage invert
    cictl evaluate --prompts pose --out outputs/evaluation-of-poses
    """
    with exit_codes(common):
        from cictl.workflow import evaluate, foreseen_pictures

        session = open_session(
            common,
            evaluate__prompts=prompts,
            evaluate__count=count,
            evaluate__noun=noun,
            seed=seed,
        )
        arguments: dict[str, Any] = {
            "overrides": session.overrides,
            "source": source.value if source else None,
            "step": step,
            "out": out,
        }
        if dry_run:
            session.work(partial(foreseen_pictures.foresee_evaluation, session.workspace, **arguments), _say_foreseen)
        else:
            session.work(partial(evaluate.run, session.workspace, **arguments), _say)


def _say(outcome: EvaluateOutcome) -> None:
    print_result(_table(outcome.measured))
    print_facts(_facts(outcome.measured) | {"std": outcome.measured.std})
    print_result(f"{'results:':<10}{outcome.results}", f"{'sheet:':<10}{outcome.sheet}")


def _table(results: Results) -> ScoreTable:
    from cictl.workflow.results import FIGURES

    rows = {one.prompt: [(score.mean, score.std) for score in one.figures.values()] for one in results.prompts}
    overall = [(score.mean, score.std) for score in results.overall.values()]
    return ScoreTable("prompt", [FIGURES[name] for name in results.overall], rows, overall)


def _say_foreseen(would: ForeseenEvaluation) -> None:
    from cictl.workflow.results import FIGURES

    measured = f"{pictures(would.pictures)} would be measured; all are there already"
    print_text(measured if would.kept == would.pictures else would_draw(would.pictures, would.kept, then="measured"))
    print_facts(_facts(would) | {"figures": ", ".join(FIGURES[name] for name in would.figures)})
    print_result(f"{'results:':<10}{would.results}", f"{'sheet:':<10}{would.sheet}")
    if would.replaced:
        print_text("which are there already and would be replaced", " " * 10)


def _facts(results: Results | ForeseenEvaluation) -> dict[str, str]:
    """What the figures depend on, in a few lines."""
    from cictl.workflow.drawing import ways_to_draw

    facts = {
        "stage": f"{results.stage}{f' after {results.steps} steps' if results.steps else ''}, on {results.base['id']}",
        "prompts": f"{results.prompt_set}, {pictures(results.count)} of each, seeds from {results.seed} on",
    }
    if ways := ways_to_draw(results.sampling):
        facts["drawn"] = ", ".join(ways)
    for name, model in (("DINOv2", results.dinov2), ("CLIP", results.clip)):
        facts[name] = f"{model['id']}, {_which(model['identity'])}" if model else "left out"
    if results.clip:
        facts["S*"] = (
            f"read by CLIP as {results.noun!r}"
            if results.noun
            else "left out where CLIP reads a prompt (--noun WORD puts a word there)"
        )
    if results.known_as:
        facts["judge"] = f"the toybox's, against the ground truth of {results.known_as}; less leakage is better"
    return facts


def _which(identity: str | None) -> str:
    return identity[:12] if identity else "still to be downloaded"

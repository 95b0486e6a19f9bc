"""`cictl compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cictl.cli.options import Common, DryRunOption, NounOption, PicturesOption, PromptSetOption, SeedOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.cli.training import say_estimate, say_outcome, warn_of_empty_settings
from cictl.events import Observer
from cictl.ui.formats import would_draw
from cictl.ui.report import print_facts, print_result, print_text
from cictl.ui.scores import ScoreTable

if TYPE_CHECKING:
    from cictl.workflow.comparison_table import CompareOutcome
    from cictl.workflow.foreseen import Foreseen


@takes_common()
def command(
    common: Common,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="With commas between them: base, textual-inversion, dreambooth, custom-diffusion, disenbooth, invert, finetune. "
            "Default: all.",
            show_default=False,
        ),
    ] = None,
    noun: NounOption = None,
    prompts: PromptSetOption = None,
    count: PicturesOption = None,
    seed: SeedOption = None,
    last: Annotated[
        bool, typer.Option("--last", help="Measure what each training ended with alone, not what it had along the way.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train other methods on the same photographs, and measure all of them: Table 1 for this concept.

    Rows are the untouched base model (which draws the noun), Textual Inversion, DreamBooth, Custom Diffusion, DisenBooth, and
    Contrastive Inversion after stage 1 and after both; each as it ended and, where one that was kept along the way is
    better, at its best. What is trained or drawn already is kept, and a run that was stopped goes on.

    \b
    cictl compare --noun teapot
    cictl compare --noun teapot --methods base,dreambooth,finetune -n 2
    """
    with exit_codes(common):
        from cictl.workflow import compare, foreseen, trainings

        session = open_session(common, evaluate__noun=noun)
        asked = {"evaluate.prompts": prompts, "evaluate.count": count, "seed": seed}
        arguments: dict[str, Any] = {
            "methods": [name.strip() for name in methods.split(",")] if methods else (),
            "overrides": session.overrides,
            "drawing": {key: value for key, value in asked.items() if value is not None},
            "last_alone": last,
        }

        def foresee(observe: Observer) -> Foreseen:
            warn_of_empty_settings(session, observe)
            return foreseen.run(session.workspace, observe, **arguments)

        def train_and_measure(observe: Observer) -> CompareOutcome:
            warn_of_empty_settings(session, observe)
            return compare.run(session.workspace, observe, **arguments)

        if dry_run:
            session.work(foresee, _say_foreseen)
            return
        outcome = session.work(train_and_measure, _say)
        if outcome.failed:
            raise trainings.missing_rows(outcome.failed, list(dict.fromkeys(row.method for row in outcome.rows)))


def _say(outcome: CompareOutcome) -> None:
    from cictl.workflow.comparison_table import facts

    print_result(_table(outcome))
    print_facts(facts(outcome))
    print_result(f"{'results:':<10}{outcome.results}", f"{'report:':<10}{outcome.report}")


def _say_foreseen(would: Foreseen) -> None:
    for training in would.trainings:
        say_outcome(training, "")
        if estimate := would.estimates.get(training.stage):
            say_estimate(estimate, "")
    print_text(would_draw(would.pictures, None))
    if would.method:
        print_text(f"({would.method})", "  ")


def _table(outcome: CompareOutcome) -> ScoreTable:
    from cictl.workflow.results import FIGURES

    rows = {row.name: [(score.mean, score.std) for score in row.overall.values()] for row in outcome.rows}
    return ScoreTable("method", [FIGURES[name] for name in outcome.rows[0].overall], rows)

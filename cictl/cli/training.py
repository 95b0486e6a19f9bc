"""The flags of the commands that train, and what they print."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from cictl.cli.session import Session
from cictl.config import METHODS, command_of
from cictl.errors import CictlError
from cictl.events import Observer, Warned
from cictl.processes import launched
from cictl.sizes import size_in_words
from cictl.ui.formats import rough_duration
from cictl.ui.report import print_result, print_text
from cictl.workflow import check
from cictl.workflow.findings import Estimate
from cictl.workflow.stage import TITLES, empty_settings
from cictl.workflow.training import TrainingOutcome

StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Steps in all.", show_default=False)]
RestartOption = Annotated[
    bool, typer.Option("--restart", help="Start anew; once that has begun, the old training goes to checkpoints/archive.")
]

_NAMES = {"invert": "stage 1", "finetune": "stage 2"}


def warn_of_empty_settings(session: Session, observe: Observer) -> None:
    """Say that ci.yaml sets nothing, if it does; of several processes the first one says it.

    What is wrong with the settings is left to the work itself, where all processes end with it: here the others would wait.
    """
    if launched()[0] != 0:
        return
    with suppress(CictlError):
        if empty := empty_settings(session.workspace, session.overrides):
            observe(Warned("; ".join(empty)))


def finish(session: Session, outcome: TrainingOutcome, next_command: str) -> None:
    """Print the outcome; after a dry run also what the training will take."""
    next_command = session.typed(next_command)
    if not outcome.dry_run or outcome.action == "skip":
        session.result(outcome, lambda: say_outcome(outcome, next_command))
        return
    with session.display() as observe:
        expected = check.expect(
            session.workspace, outcome.stage, observe, session.overrides, done=outcome.first_step, fresh=outcome.action == "run"
        )

    def say() -> None:
        say_outcome(outcome, next_command)
        say_estimate(*expected)

    session.result({**asdict(outcome), "estimate": asdict(expected[0])}, say)


def say_estimate(estimate: Estimate, method: str) -> None:
    """Print what a training will take."""
    took, memory = rough_duration(estimate.seconds), size_in_words(estimate.memory, "MiB")
    less = "" if estimate.kept == "full" else f" (model.memory {estimate.kept})"
    if estimate.class_pictures:
        print_text(
            f"about {rough_duration(estimate.drawing)} for {estimate.class_pictures} class pictures, which are drawn first"
        )
    command = command_of(estimate.stage)
    print_text(f"about {took} for {estimate.steps} steps of {command}, {memory} beside the libraries' own{less}")
    if estimate.stage in METHODS and estimate.checkpoint:
        snapshots = f"; {size_in_words(estimate.snapshots, 'MiB')} for the results along the way" if estimate.snapshots else ""
        print_text(f"{size_in_words(estimate.checkpoint, 'MiB')} for a checkpoint, of which two are kept{snapshots}")
    if method:
        print_text(f"({method})", "  ")


def say_outcome(outcome: TrainingOutcome, next_command: str) -> None:
    """One or two lines about what was done."""
    stage = _NAMES.get(outcome.stage) or TITLES[outcome.stage]
    if outcome.dry_run:
        action = {
            "run": f"would train {outcome.steps} steps",
            "resume": f"would go on from step {outcome.first_step} to {outcome.steps}",
            "skip": f"is already done ({outcome.first_step} steps); nothing would be trained",
        }[outcome.action]
        print_text(f"{stage} {action}")
        return
    if outcome.action == "skip":
        print_result(f"{stage} is already done: {outcome.steps} steps, {outcome.checkpoint}")
        if outcome.ended_early:
            print_result(f"it {outcome.ended_early}")
    else:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in outcome.losses.items())
        early = " early" if outcome.ended_early else ""
        print_result(f"{stage} is done{early}: {outcome.steps} steps in {outcome.seconds:.0f} s ({losses}), {outcome.checkpoint}")
    print_result(f"next: {next_command}")

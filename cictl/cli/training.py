"""The flags of `cictl invert` and `cictl finetune`, and what both print."""

from __future__ import annotations

from typing import Annotated

import typer

from cictl.ui.report import print_result
from cictl.workflow.training import TrainingOutcome

StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Steps in all.", show_default=False)]
RestartOption = Annotated[bool, typer.Option("--restart", help="Start anew; old checkpoints go to checkpoints/archive.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]

_STAGES = {"invert": "stage 1", "finetune": "stage 2"}


def say_outcome(outcome: TrainingOutcome, next_command: str) -> None:
    """One or two lines about what was done."""
    stage = _STAGES[outcome.stage]
    if outcome.dry_run:
        action = {
            "run": f"would train {outcome.steps} steps",
            "resume": f"would go on from step {outcome.first_step} to {outcome.steps}",
            "skip": f"is already done ({outcome.first_step} steps); nothing would be trained",
        }[outcome.action]
        print_result(f"{stage} {action}")
        return
    if outcome.action == "skip":
        print_result(f"{stage} is already done: {outcome.steps} steps, {outcome.checkpoint}")
    else:
        losses = ", ".join(f"{name} {value:.4g}" for name, value in outcome.losses.items())
        print_result(f"{stage} is done: {outcome.steps} steps in {outcome.seconds:.0f} s ({losses}), {outcome.checkpoint}")
    print_result(f"next: {next_command}")

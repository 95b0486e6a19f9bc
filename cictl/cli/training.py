"""What `cictl invert` and `cictl finetune` print alike."""

from __future__ import annotations

from cictl.ui.report import print_result
from cictl.workflow.training import TrainingOutcome

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

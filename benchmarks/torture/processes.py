"""Several commands at once, and signals at any moment, through the command line itself."""

from __future__ import annotations

import random
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.torture.workspaces import Yard, end, start, still_runs, train, wait, wait_until
from cictl.cli.app import main
from cictl.config import STAGES, Stage
from cictl.records import latest_checkpoint
from cictl.workspace import Workspace

_BUSY = 75
_RACERS = 4
_LONG = "100000"


@dataclass
class Outcome:
    """How often it was tried, and what was wrong.

    Attributes:
        times: races, or signals that came while the training ran.
        trainings: that a signal was sent to; some were done before it came.
    """

    times: int = 0
    trainings: int = 0
    wrong: list[str] = field(default_factory=list)


def races(yard: Yard, times: int) -> Outcome:
    """Several processes start to train one workspace at once: one must win, the others must say that it is busy."""
    outcome = Outcome()
    for number in range(times):
        workspace = yard.before("invert", f"race-{number}")
        outcome.times += 1
        racers = [start(_command(workspace, "invert", "--set", f"invert.steps={_LONG}")) for _ in range(_RACERS)]

        def lost(racers: list[int] = racers) -> list[int]:
            return [racer for racer in racers if not still_runs(racer)]

        wait_until(lambda: len(lost()) >= _RACERS - 1, 60)
        winners = [racer for racer in racers if still_runs(racer)]
        codes = [end(racer) if racer in winners else wait(racer) for racer in racers]
        if sorted(codes) != [-signal.SIGKILL, *[_BUSY] * (_RACERS - 1)]:
            outcome.wrong.append(f"race {number}: {codes}")
        shutil.rmtree(workspace.root)
    return outcome


def signals(yard: Yard, times: int, seed: int = 0) -> Outcome:
    """SIGINT or SIGTERM once a checkpoint is there: the right exit code, a checkpoint, and no other bits in the end."""
    rng, outcome = random.Random(seed), Outcome()
    while outcome.times < times:
        stage = STAGES[outcome.trainings % 2]
        workspace = yard.before(stage, f"signal-{outcome.trainings}")
        outcome.trainings += 1
        sent = rng.choice((signal.SIGINT, signal.SIGTERM))
        problem = _signal_once(workspace, stage, sent, rng.uniform(0, 0.4))
        outcome.times += problem is not None
        if problem:
            outcome.wrong.append(f"{stage}, signal {sent}: {problem}")
        elif wait(start(lambda workspace=workspace, stage=stage: train(workspace, stage))):  # type: ignore[misc]
            outcome.wrong.append(f"{stage}, signal {sent}: it does not go on")
        elif problem := yard.differs(workspace, stage):
            outcome.wrong.append(f"{stage}, signal {sent}: {problem}")
        shutil.rmtree(workspace.root)
    return outcome


def _signal_once(workspace: Workspace, stage: Stage, sent: int, delay: float) -> str | None:
    """What is wrong after the signal, or nothing; None if the training was done before it came."""
    folder = workspace.stage_folder(stage)
    child = start(_command(workspace, stage))
    wait_until(lambda: folder.exists() and any(folder.glob("step-*")), 60, child)
    wait_until(lambda: False, delay, child)
    before = latest_checkpoint(folder)[0]
    code = end(child, sent)
    if code == 0:
        return None
    if code != 128 + sent:
        return f"exit code {code}"
    after = latest_checkpoint(folder)[0]
    if before is None or after is None or after.step < before.step:
        return "a checkpoint is gone"
    return ""


def _command(workspace: Workspace, *arguments: str) -> Callable[[], None]:
    def run() -> None:
        sys.argv = ["cictl", *arguments, "-C", str(workspace.root)]
        try:
            main()
        except SystemExit as ending:
            raise _Ended(int(ending.code or 0)) from None

    return run


class _Ended(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.exit_code = code

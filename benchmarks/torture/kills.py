"""SIGKILL at random moments of both stages, many of them in the middle of a checkpoint; then the same command again."""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.torture.workspaces import Yard, end, start, still_runs, train, wait, wait_until
from cictl.config import STAGES, Stage
from cictl.workspace import Workspace

_KILLS_A_WORKSPACE = 4


@dataclass
class Outcome:
    """What the kills did.

    Attributes:
        kills: sent while the training ran.
        staging: how many of them left a half-written checkpoint behind.
        workspaces: that were killed at, then trained to their end.
        stuck: those that did not go on; differing: those that ended with other bits.
    """

    kills: int = 0
    staging: int = 0
    workspaces: int = 0
    stuck: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def torture(yard: Yard, kills: int, seed: int = 0) -> Outcome:
    """Kill ``kills`` times, half of them as soon as a checkpoint is being written."""
    rng, outcome = random.Random(seed), Outcome()
    while outcome.kills < kills:
        stage = STAGES[outcome.workspaces % 2]
        name = f"killed-{outcome.workspaces}"
        workspace = yard.before(stage, name)
        outcome.workspaces += 1
        for _ in range(min(_KILLS_A_WORKSPACE, kills - outcome.kills)):
            if not _kill_once(workspace, stage, rng, outcome):
                break  # it was done before the kill came
        if code := wait(start(lambda workspace=workspace, stage=stage: train(workspace, stage))):  # type: ignore[misc]
            outcome.stuck.append(f"{name}: {stage} ends with {code}")
        elif problem := yard.differs(workspace, stage):
            outcome.differing.append(f"{name}: {problem}")
        shutil.rmtree(workspace.root)
    return outcome


def _kill_once(workspace: Workspace, stage: Stage, rng: random.Random, outcome: Outcome) -> bool:
    """Start, and kill; whether the kill came in time."""
    folder = workspace.stage_folder(stage)
    child = start(lambda: train(workspace, stage))
    moment = rng.uniform(0.05, 0.5)
    if rng.random() < 0.5:
        _stop_while_writing(folder, child)
    else:
        wait_until(lambda: _checkpoints(folder), 20, child)
        wait_until(lambda: False, moment, child)
    if end(child) != -9:
        return False
    outcome.kills += 1
    outcome.staging += bool(list(folder.glob(".staging-*")))
    return True


def _stop_while_writing(folder: Path, child: int) -> None:
    """Stop the training at a moment when a half-written checkpoint lies there, unless it ends before.

    A kill alone would often come too late on a machine that has other work.
    """
    while wait_until(lambda: _checkpoints(folder) and list(folder.glob(".staging-*")), 20, child) and still_runs(child):
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if list(folder.glob(".staging-*")):
            return
        os.kill(child, signal.SIGCONT)


def _checkpoints(folder: Path) -> bool:
    return folder.exists() and any(folder.glob("step-*"))

"""Tiny workspaces that train in a second, and processes that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cictl.config import STAGES, Stage
from cictl.events import ignore
from cictl.records import RESULT, STATE, latest_checkpoint
from cictl.workflow import finetune, init, invert
from cictl.workspace import Workspace
from tests.support import quick, write_settings
from tests.tiny import make_base, make_photographs

STEPS = {"invert": 24, "finetune": 16}
_RUN = {"invert": invert.run, "finetune": finetune.run}


@dataclass(frozen=True)
class Yard:
    """A workspace whose stages were trained without any trouble, and copies of it in which one is still to come.

    Attributes:
        folder: where everything lies.
        whole: both stages done.
    """

    folder: Path
    whole: Workspace

    @classmethod
    def build(cls, folder: Path) -> Yard:
        """A tiny random base model, three photographs, and both stages."""
        torch.set_num_threads(1)  # a process with threads cannot be forked
        base = make_base(folder / "tiny-base")
        whole = init.run(folder / "whole", model=str(base), images=make_photographs(folder / "photographs"), name="my-teapot")
        steps = {f"{stage}.steps": STEPS[stage] for stage in STAGES}
        write_settings(whole, {**quick(base), **steps, "checkpoint.interval": 1, "tracking.interval": 1})
        for stage in STAGES:
            train(whole, stage)
        return cls(folder, whole)

    def before(self, stage: Stage, name: str) -> Workspace:
        """A copy in which ``stage`` is still to come."""
        workspace = Workspace(Path(shutil.copytree(self.whole.root, self.folder / name)))
        for later in STAGES[STAGES.index(stage) :]:
            shutil.rmtree(workspace.stage_folder(later))
            (workspace.logs / f"{later}.jsonl").unlink()
        return workspace

    def differs(self, workspace: Workspace, stage: Stage) -> str:
        """What is not, bit for bit, as the untroubled training left it; or nothing."""
        found, _ = latest_checkpoint(workspace.stage_folder(stage))
        wanted, _ = latest_checkpoint(self.whole.stage_folder(stage))
        if found is None or wanted is None or found.step != wanted.step:
            return f"{stage} is at step {found.step if found else 'none'}"
        changed = [name for name in (RESULT, STATE) if found.manifest["files"][name] != wanted.manifest["files"][name]]
        return f"{stage}: {', '.join(changed)} differ" if changed else ""


def train(workspace: Workspace, stage: Stage) -> None:
    """Train ``stage`` to its end, or go on with it."""
    _RUN[stage](workspace, ignore)


def start(work: Callable[[], None]) -> int:
    """Do ``work`` in a forked process, whose output goes nowhere; its number."""
    child = os.fork()
    if child:
        return child
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        work()
    except BaseException as error:
        os._exit(getattr(error, "stopped_with", getattr(error, "exit_code", 1)))
    os._exit(0)


def end(child: int, number: int = signal.SIGKILL) -> int:
    """Send a signal, and wait; the exit code, negative for a signal's number."""
    os.kill(child, number)
    return wait(child)


def wait(child: int) -> int:
    """Wait for the end; the exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def still_runs(child: int) -> bool:
    """Whether it does; it is not waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def wait_until(condition: Callable[[], object], seconds: float, child: int | None = None) -> bool:
    """Poll ``condition``, quickly, until it holds, the time is over, or the child (if given) has ended."""
    over = time.monotonic() + seconds
    while time.monotonic() < over and (child is None or still_runs(child)):
        if condition():
            return True
        time.sleep(0.0002)
    return bool(condition())

"""The curves of a training in TensorBoard, or in another tracker that is installed, through the library accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cictl.config import Config, Stage, settings_of
from cictl.data.png import open_png
from cictl.errors import CictlError, UsageError
from cictl.events import Event, LossEvaluated, Memory, Observer, PreviewSaved, Progress, StageStarted, StepCompleted
from cictl.workspace import Workspace

_MEBIBYTE = 2**20


def tensorboard_folder(workspace: Workspace, stage: str) -> Path:
    """Where the event files of a stage lie."""
    return workspace.logs / "tensorboard" / stage


def require_trackers(names: Sequence[str]) -> None:
    """The packages of ``names`` must be installed, and are called as the trackers are.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise UsageError(
                f"tracking.to names {name}, which is not installed",
                f"pip install {name.replace('_', '-')}, or take it out",
                slug="tracker-not-installed",
            )


class Curves:
    """An observer that sends losses, rates, memory and previews to the trackers of ci.yaml, and passes everything on.

    It begins when the stage does. TensorBoard goes on with the curves of a run that was stopped: what it had of the
    steps after the checkpoint, which are made again, its readers leave out.

    Args:
        workspace, stage, config: of the run.
        observe: who else is told.
    """

    def __init__(self, workspace: Workspace, stage: Stage, config: Config, observe: Observer) -> None:
        self._names = list(config.tracking.to)
        self._project = config.concept.name
        self._stage = stage
        self._logs = workspace.logs
        self._folder = tensorboard_folder(workspace, stage)
        self._learning_rate = settings_of(config, stage).learning_rate
        self._observe = observe
        self._trackers: list[Any] = []

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted(first_step=first_step):
                self._start(first_step)
            case StepCompleted(step, losses):
                self._log(step, {f"loss/{name}": value for name, value in losses.items()})
            case LossEvaluated(step, loss):
                self._log(step, {"loss/evaluation": loss})
            case Progress(step=step, seconds_per_step=seconds, memory=memory):
                self._log(step, {"rate/learning": self._learning_rate, "rate/steps a second": 1 / seconds, **_mebibytes(memory)})
            case PreviewSaved(step, path):
                self._log_picture(step, path)
        self._observe(event)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *error: object) -> None:
        # Not by Accelerator.end_training, which would part this process from the others that train with it.
        for tracker in self._trackers:
            tracker.finish()

    def _start(self, first_step: int) -> None:
        from accelerate import Accelerator
        from accelerate.utils import ProjectConfiguration

        where = ProjectConfiguration(logging_dir=str(self._folder))
        options = {"tensorboard": {"purge_step": first_step + 1}, "wandb": {"name": self._stage, "dir": str(self._logs)}}
        try:
            accelerator = Accelerator(log_with=self._names, project_config=where)
            accelerator.init_trackers(self._project, init_kwargs=options)
        except Exception as error:  # of somebody else's program, account or network
            raise CictlError(
                f"{', '.join(self._names)} cannot be started: {error}",
                "see to it, or train without: --set tracking.to=[]",
                slug="tracker-not-started",
            ) from error
        self._trackers = accelerator.trackers

    def _log(self, step: int, values: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(values, step=step)

    def _log_picture(self, step: int, path: Path) -> None:
        import numpy as np

        with open_png(path) as image:
            pictures = np.asarray(image.convert("RGB"))[None]
        for tracker in self._trackers:
            if hasattr(tracker, "log_images"):  # not all of them take pictures
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"preview": pictures}, step=step, **layout)


def _mebibytes(memory: Memory) -> dict[str, float]:
    return {"memory/allocated MiB": memory.allocated / _MEBIBYTE, "memory/peak MiB": memory.peak / _MEBIBYTE}

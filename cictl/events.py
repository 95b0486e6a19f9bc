"""What the work says while it goes on. Who shows it, and how, is not the work's business.

Every event is a frozen dataclass of plain values, so that it can be printed, drawn, or written as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes: on a GPU its own (VRAM), on a CPU the resident memory of this process.

    ``allocated`` is in use now, ``peak`` the most so far, ``total`` what the device has.
    """

    device: str
    allocated: int
    peak: int
    total: int


@dataclass(frozen=True, slots=True)
class Event:
    """The root of all events; ``name`` is what JSON lines call it."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def as_json(self, shown: Callable[[Path], str] = str) -> dict[str, Any]:
        """A dictionary of plain values, with the event's name first, and paths as ``shown`` writes them."""
        values = {key: shown(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        return {"event": self.name, **values}


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something worth a line: what was found, chosen or kept."""

    message: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something that does not stop the work but may surprise."""

    message: str


@dataclass(frozen=True, slots=True)
class PhaseStarted(Event):
    """A part of the work without steps of its own begins, such as "loading the base model"."""

    message: str


@dataclass(frozen=True, slots=True)
class DownloadProgress(Event):
    """``done`` of ``total`` bytes of a model's files are on this machine; ``file`` is being fetched.

    The first one comes before the first byte is asked for; there is none for a model that is all there.
    """

    model: str
    file: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A training stage begins, or goes on, at ``first_step`` of ``steps`` (steps that are done)."""

    stage: str
    first_step: int
    steps: int
    device: str
    dtype: str
    trainable_parameters: int


@dataclass(frozen=True, slots=True)
class StepCompleted(Event):
    """``step`` steps are done. ``losses`` are those of this step, unweighted, by term."""

    step: int
    losses: dict[str, float]


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How training goes: sent at display intervals only, since asking a GPU costs time.

    ``seconds_per_step`` is over the steps since the last one of these.
    """

    step: int
    steps: int
    losses: dict[str, float]
    seconds_per_step: float
    memory: Memory


@dataclass(frozen=True, slots=True)
class LossEvaluated(Event):
    """Eq. 1 on a fixed batch after ``step`` steps; ``ratio`` is the variance of the last of these by that of all."""

    step: int
    loss: float
    ratio: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved(Event):
    """A checkpoint of ``step`` steps stands whole on the disk."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class PutAside(Event):
    """A training gave way to another one: it lies at ``path`` now, and ``back`` is what to type to have it back."""

    path: Path
    back: str


@dataclass(frozen=True, slots=True)
class PreviewSaved(Event):
    """A picture made in the middle of training, after ``step`` steps."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True)
class StageCompleted(Event):
    """All steps of a stage are done, or as many as it took to converge."""

    stage: str
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class PicturesPlanned(Event):
    """``total`` pictures are asked for, of which ``kept`` lie on the disk already."""

    total: int
    kept: int


@dataclass(frozen=True, slots=True)
class SamplingStep(Event):
    """``step`` of ``steps`` denoising steps are done for the pictures in hand."""

    step: int
    steps: int
    memory: Memory


@dataclass(frozen=True, slots=True)
class ImageSaved(Event):
    """Picture ``index`` (from 1) of ``total`` is on the disk."""

    index: int
    total: int
    path: Path
    memory: Memory | None = None


@dataclass(frozen=True, slots=True)
class FileSaved(Event):
    """A file other than a picture is on the disk, verified."""

    path: Path
    size: int
    verified: bool = False


Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An observer that shows nothing."""

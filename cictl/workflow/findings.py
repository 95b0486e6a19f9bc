"""What was found before a training, and what it, or drawing, will take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cictl.config import Stage
from cictl.errors import CictlError

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: photographs, config, training, model, CLIP, device, estimates, or disk.
        hint: what to do about it; empty where all is well.
        slug: of an error, as the command that would end with it gives it.
    """

    level: Level
    about: str
    message: str
    hint: str = ""
    slug: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a training will take: bytes on the device, seconds for its steps, bytes of one of its checkpoints.

    Attributes:
        snapshots: bytes of all results that are kept along the way.
        kept: model.memory, or what auto chose.
        class_pictures: that are to be drawn first, in ``drawing`` seconds.
    """

    stage: Stage
    steps: int
    memory: int
    seconds: float
    checkpoint: int
    snapshots: int
    kept: str = "full"
    class_pictures: int = 0
    drawing: float = 0.0


@dataclass(frozen=True)
class DrawingEstimate:
    """What pictures will take: ``seconds`` on ``device``, and how that was estimated."""

    seconds: float
    device: str
    method: str


@dataclass
class CheckReport:
    """What was found, and what training will take; ``method`` says how that was estimated."""

    workspace: str
    findings: list[Finding] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    method: str = ""
    exit_code: int = 0

    def add(self, level: Level, about: str, message: str, hint: str = "") -> None:
        """Note something."""
        self.findings.append(Finding(level, about, message, hint))

    def fail(self, about: str, error: CictlError) -> None:
        """Note an error; the first one gives the exit code."""
        self.findings.append(Finding("error", about, error.message, error.hint, error.slug))
        self.exit_code = self.exit_code or error.exit_code

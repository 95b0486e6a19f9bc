"""What an evaluation finds, as results.json holds it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cictl.errors import ResourceError
from cictl.evaluation.scores import Score
from cictl.files import how_to_write, write_atomic
from cictl.workflow.provenance import Trained

FIGURES = {
    "dinov2": "DINOv2",
    "clip_i": "CLIP-I",
    "clip_t": "CLIP-T",
    "fidelity": "fidelity",
    "alignment": "alignment",
    "leakage": "leakage",
}
STD = "standard deviation with n - 1: of a prompt over its pictures, in the last row over the means of the prompts"
_AXES = (("fidelity", "alignment"), ("dinov2", "clip_t"), ("clip_i", "clip_t"))


@dataclass(frozen=True)
class PictureResult:
    """A picture: its path from the results' folder on, its figures (none if it was blanked), and what a judge reads in it."""

    path: str
    seed: int
    figures: dict[str, float]
    reading: dict[str, str] | None = None


@dataclass(frozen=True)
class PromptResult:
    """A prompt, how CLIP read it, and the figures over its pictures."""

    prompt: str
    text: str
    figures: dict[str, Score]
    pictures: list[PictureResult]


@dataclass(frozen=True)
class Results:
    """What results.json holds.

    Attributes:
        stage: whose weights drew: finetune, invert, another method, or base.
        steps: of that stage that were done; 0 for the base.
        base, dinov2, clip: id and identity (a commit, or a digest of the files); None for a model that was left out.
        concept_hash: of all that generation read of the concept.
        trained: the trainings behind it, in their order; none of the base.
        prompt_set: the name of a set, or a file.
        sampling: what else the pictures depend on.
        circumstances: libraries, device and precision of this command; pictures that were kept may be of others.
        photographs, photographs_sha256: names of those that pictures are compared with, and the hash of each.
        known_as: the toybox's own name of the concept, where its judge has read the pictures against ground truth.
        std: what the standard deviations are over.
        overall: each figure, as a mean over the prompts' means.
    """

    cictl: str
    concept: str
    kind: str
    stage: str
    steps: int
    base: dict[str, str]
    concept_hash: str
    trained: list[Trained]
    dinov2: dict[str, str] | None
    clip: dict[str, str] | None
    prompt_set: str
    noun: str | None
    seed: int
    count: int
    sampling: dict[str, Any]
    circumstances: dict[str, Any]
    photographs: list[str]
    photographs_sha256: dict[str, str]
    known_as: str | None
    std: str
    overall: dict[str, Score]
    prompts: list[PromptResult]


def axes(figures: Mapping[str, Any]) -> tuple[str, str] | None:
    """Of the figures that there are: what says that the concept is kept, and what, that the prompt is obeyed."""
    return next((pair for pair in _AXES if set(pair) <= figures.keys()), None)


def save_json(path: Path, found: Any) -> None:
    """Write a dataclass as JSON, as :func:`save_text`."""
    save_text(path, json.dumps(asdict(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def save_text(path: Path, text: str) -> None:
    """Write what was found, whole or not at all.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written: {error.strerror}",
            how_to_write(path, error),
            slug="results-not-written",
        ) from None

"""Where S* and the A_i* start: at what ci.yaml says, or at words that the photographs suggest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cictl.config import AUTO_START, FROM_PHOTOGRAPHS, Config
from cictl.data.photographs import Photograph
from cictl.events import Note, Observer, PhaseStarted
from cictl.records import latest_checkpoint
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cictl.models.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class Starts:
    """Words, or auto: of S*, and of each A_i* in the order of the photographs."""

    concept: str
    auxiliary: list[str]


@dataclass(frozen=True)
class Sight:
    """What CLIP says of the photographs, and reads words with.

    Attributes:
        images: tau_I(x_i), [N, D_shared]; None where nothing asks for it (``reads_clip``).
        projection: of text, [D_shared, D_text]; None with it.
        tower: CLIP's own text tower, where the base's is another.
    """

    images: Tensor | None
    projection: Tensor | None
    tower: nn.Module | None


def find_starts(
    workspace: Workspace,
    config: Config,
    model: StableDiffusion,
    photographs: Sequence[Photograph],
    sight: Sight,
    observe: Observer,
) -> Starts:
    """What the tokens of stage 1 start at, and a note about what was found.

    A training that goes on takes its tokens from the checkpoint, and nothing is looked for.

    Raises:
        UsageError: a start in ci.yaml is no word that the model knows.
    """
    from cictl.models.concept_tokens import require_words

    asked = {"concept.start": config.concept.start}
    if config.invert.auxiliary_vectors:
        asked["invert.auxiliary_start"] = config.invert.auxiliary_start
    begun, _ = latest_checkpoint(workspace.stage_folder("invert"), verify=False)
    for key, start in asked.items():
        if start == FROM_PHOTOGRAPHS and begun:
            asked[key] = AUTO_START
        elif start != FROM_PHOTOGRAPHS:
            require_words(model.tokenizer, start, key)
    concept, auxiliary = asked["concept.start"], [asked.get("invert.auxiliary_start", AUTO_START)] * len(photographs)
    if FROM_PHOTOGRAPHS not in asked.values():
        return Starts(concept, auxiliary)
    return _suggested(concept, auxiliary, model, photographs, sight, observe)


def _suggested(
    concept: str,
    auxiliary: list[str],
    model: StableDiffusion,
    photographs: Sequence[Photograph],
    sight: Sight,
    observe: Observer,
) -> Starts:
    from cictl.models.starts import embed_words, suggest, whole_words

    assert sight.images is not None and sight.projection is not None
    words = whole_words(model.tokenizer)
    observe(PhaseStarted(f"comparing the photographs with {len(words):,} words"))
    suggested = suggest(words, embed_words(model, words, sight.projection, sight.tower), sight.images)
    if concept == FROM_PHOTOGRAPHS:
        concept = " ".join(suggested.concept)
        observe(Note(f"S* starts near: {', '.join(suggested.concept)}"))
    if FROM_PHOTOGRAPHS in auxiliary:
        auxiliary = [" ".join(own) for own in suggested.auxiliary]
        for photograph, own in zip(photographs, suggested.auxiliary, strict=True):
            observe(Note(f"A* of {photograph.name} starts near: {', '.join(own)}"))
    return Starts(concept, auxiliary)

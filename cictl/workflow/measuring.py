"""What measures drawn pictures, found beforehand: one network after another, each loaded once for all, and the toybox's judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cictl.config import Config
from cictl.data.photographs import Photograph, find_photographs, open_upright
from cictl.data.png import opened
from cictl.data.prompts import in_words
from cictl.events import Observer, PhaseStarted
from cictl.models.downloads import require_obtainable
from cictl.models.locate import Located, MetricNetwork, locate_metric, metric_request
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.tasks import Task
from cictl.workflow.concept import Concept
from cictl.workflow.memory import out_of_memory_explained
from cictl.workflow.pictures import Drawn
from cictl.workflow.plans import Plan
from cictl.workflow.prompt_sets import PromptSet, choose_prompts
from cictl.workflow.provenance import circumstances
from cictl.workspace import Workspace

_FIGURES = {"dinov2": ("dinov2",), "clip": ("clip_i", "clip_t")}  # of each network
_JUDGED = ("fidelity", "alignment", "leakage")
_LESS_MEMORY = "the pictures are kept: the same command with --set model.device=cpu has only to measure them"


@dataclass(frozen=True)
class Terms:
    """What all that is evaluated together has in common, known before a picture is drawn.

    Attributes:
        metrics: the networks that measure, by figure's family: dinov2, clip.
        known: the concept, if the toybox knows it.
    """

    config: Config
    metrics: Mapping[str, Located]
    photographs: Sequence[Photograph]
    asked: PromptSet
    known: ToyConcept | None

    @property
    def count(self) -> int:
        """Pictures a prompt."""
        return self.config.evaluate.count

    def text(self, prompt: str) -> str:
        """The prompt as CLIP, and the untouched base, read it."""
        return in_words(prompt, self.config.evaluate.noun)


def find_terms(workspace: Workspace, config: Config, observe: Observer, *, download: bool = True) -> Terms:
    """Photographs, prompts, and networks that measure.

    Args:
        download: the networks that are not here yet; otherwise the hub is only asked for them, and they are left out.

    Raises:
        UsageError: photographs or prompts cannot be used.
        ModelAccessError, ResourceError: a network cannot be had.
    """
    photographs = find_photographs(workspace.images)
    known = _recognise(config, photographs)
    asked = choose_prompts(config, workspace.root, known)
    return Terms(config, _find_metrics(config, observe, download=download), photographs, asked, known)


def _recognise(config: Config, photographs: Sequence[Photograph]) -> ToyConcept | None:
    """The toybox's concept that these are photographs of, if its base model draws, in a size that its judge reads."""
    from cictl.evaluation.ground_truth import SIDE, recognise

    if config.model.id != "toybox" or config.picture_size != (SIDE, SIDE):
        return None
    return recognise(np.asarray(open_upright(photograph.path)) for photograph in photographs)


def _find_metrics(config: Config, observe: Observer, *, download: bool) -> dict[str, Located]:
    settings = config.evaluate
    found: dict[str, Located] = {}
    models: dict[MetricNetwork, tuple[str | None, str | None]] = {
        "dinov2": (settings.dinov2, settings.dinov2_revision), "clip": (settings.clip, settings.clip_revision),
    }  # fmt: skip
    for which, (model, revision) in models.items():
        if not model:
            continue
        locate = partial(locate_metric, model, revision, which, observe, offline=not download)
        request = metric_request(model, revision, which)
        if located := locate() if download else require_obtainable(locate, request, observe):
            found[which] = located
    return found


@dataclass(frozen=True)
class DrawnConcept:
    """A concept's pictures, in the order of their plans.

    Attributes:
        config: of its source, which kept --set may shape.
        concept: without its tensors, which are large and no longer needed.
        words: what stood for S* in its prompts.
        shown: those that no safety checker blanked, with their prompts.
    """

    config: Config
    concept: Concept
    words: str
    base: Located
    folder: Path
    plans: Sequence[Plan]
    pictures: Drawn
    shown: Mapping[Path, str]


@dataclass
class Columns:
    """Figures and readings of the pictures that are measured, in one order."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    readings: list[dict[str, str]] = field(default_factory=list)


def figures_of(terms: Terms) -> list[str]:
    """The names of the figures that :func:`measure` gives, known before a picture is drawn."""
    measured = [name for network, own in _FIGURES.items() if getattr(terms.config.evaluate, network) for name in own]
    return [*measured, *(_JUDGED if _tasks(terms) else ())]


def judged_as(terms: Terms) -> str | None:
    """The toybox's own name of the concept, where its judge reads pictures against what was asked for; None where nobody does."""
    return terms.known.name if terms.known and _tasks(terms) else None


def measure(terms: Terms, drawn: Sequence[DrawnConcept], observe: Observer) -> tuple[list[Columns], dict[str, Any]]:
    """The figures of all pictures, and under which circumstances they came. One network at a time is on the device, no UNet."""
    from cictl.engine.runtime import Runtime
    from cictl.evaluation.clip_score import embed_with_clip
    from cictl.evaluation.dinov2 import embed_with_dinov2
    from cictl.evaluation.metrics import image_similarity, text_similarity

    count, found = len(terms.photographs), [Columns() for _ in drawn]
    total = sum(len(one.shown) for one in drawn)
    with out_of_memory_explained(_LESS_MEMORY):
        runtime = Runtime.create(terms.config.model.device, terms.config.model.dtype)
        if dinov2 := terms.metrics.get("dinov2"):
            observe(PhaseStarted(f"looking at {total} pictures with {dinov2.id}"))
            for columns, embeddings in zip(found, embed_with_dinov2(dinov2, _sets(terms, drawn), runtime.device), strict=True):
                columns.figures["dinov2"] = image_similarity(embeddings[count:], embeddings[:count]).tolist()
        if clip := terms.metrics.get("clip"):
            observe(PhaseStarted(f"looking at {total} pictures with {clip.id}"))
            rows = {prompt: row for row, prompt in enumerate(terms.asked.prompts)}
            asked = [terms.text(prompt) for prompt in rows]
            sets, texts = embed_with_clip(clip, _sets(terms, drawn), asked, runtime.device)
            for one, columns, embeddings in zip(drawn, found, sets, strict=True):
                own = texts[[rows[prompt] for prompt in one.shown.values()]]
                columns.figures["clip_i"] = image_similarity(embeddings[count:], embeddings[:count]).tolist()
                columns.figures["clip_t"] = text_similarity(embeddings[count:], own).tolist()
    _judge(terms, drawn, found)
    return found, circumstances(runtime)


def _sets(terms: Terms, drawn: Sequence[DrawnConcept]) -> Iterator[Iterator[Image.Image]]:
    """Of each the photographs, whole and upright, then the pictures; one after another.

    The photographs come again each time, since the last bits of an embedding depend on its place in a batch: so a figure
    does not depend on what else is measured.
    """
    for one in drawn:
        yield chain((open_upright(photograph.path) for photograph in terms.photographs), map(opened, one.shown))


def _judge(terms: Terms, drawn: Sequence[DrawnConcept], found: Sequence[Columns]) -> None:
    """Add what the toybox's judge reads, and, of a concept that is known, how that fits what was asked for."""
    from cictl.evaluation.ground_truth import SIDE, judge_pictures, judgement

    of_toybox = [pair for pair in zip(drawn, found, strict=True) if pair[0].base.id == "toybox"]
    if not of_toybox or terms.config.picture_size != (SIDE, SIDE):
        return
    sets = ([np.asarray(opened(path)) for path in one.shown] for one, _ in of_toybox)
    tasks = _tasks(terms)
    for (one, columns), readings in zip(of_toybox, judge_pictures(of_toybox[0][0].base.folder, sets), strict=True):
        columns.readings = readings
        if terms.known and tasks:
            read = zip(one.shown.values(), readings, strict=True)
            judged = [judgement(terms.known, tasks[prompt], reading) for prompt, reading in read]
            columns.figures |= {name: [getattr(each, name) for each in judged] for name in _JUDGED}


def _tasks(terms: Terms) -> Mapping[str, Task]:
    """What the toybox's suite asks of each prompt; nothing unless it knows the concept and all of the prompts."""
    from cictl.evaluation.ground_truth import tasks_by_prompt

    tasks = tasks_by_prompt(terms.known) if terms.known else {}
    return tasks if all(prompt in tasks for prompt in terms.asked.prompts) else {}

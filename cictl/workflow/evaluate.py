"""`cictl evaluate`: how well S* keeps what the photographs share, and how well prompts still work, in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import cictl
from cictl.config import Config
from cictl.data.photographs import Photograph, find_photographs, open_upright
from cictl.data.png import Row, sheet, write_png
from cictl.data.prompts import expand, in_words
from cictl.errors import CictlError, UsageError
from cictl.evaluation.scores import over_prompts, summarize
from cictl.events import Observer, PhaseStarted, Warned
from cictl.models.locate import Located, locate_metric
from cictl.placeholders import CONCEPT
from cictl.toybox.concepts import ToyConcept
from cictl.workflow.concept import Concept, Source, find_concept, last_stage
from cictl.workflow.memory import out_of_memory_explained
from cictl.workflow.pictures import Plan, draw_pictures, find_base_of, make_plan
from cictl.workflow.prompt_sets import PromptSet, choose_prompts
from cictl.workflow.results import FIGURES, STD, PictureResult, PromptResult, Results, save_json
from cictl.workflow.stage import TITLES, configure
from cictl.workspace import Workspace

RESULTS = "results.json"
SHEET = "sheet.png"
PICTURES = "pictures"
_SAMPLING = ("steps", "guidance", "sampler", "negative", "width", "height", "dtype")
_LESS_MEMORY = "the pictures are kept: the same command with --set model.device=cpu has only to measure them"


@dataclass(frozen=True)
class EvaluateOutcome:
    """The results and where they lie; ``kept`` of the pictures were there already, ``blanked`` by the safety checker."""

    measured: Results
    kept: int
    blanked: list[str]
    results: str
    sheet: str


@dataclass(frozen=True)
class _Job:
    """Everything that is known before a picture is drawn.

    Attributes:
        metrics: the networks that measure, by figure's family: dinov2, clip.
        known: the concept, if the toybox knows it.
    """

    config: Config
    concept: Concept
    base: Located
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


@dataclass
class _Columns:
    """Figures and readings of the pictures that are measured, in one order."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    readings: list[dict[str, str]] = field(default_factory=list)


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source | None = None,
    step: int | None = None,
    out: Path | None = None,
) -> EvaluateOutcome:
    """Draw ``evaluate.count`` pictures of each prompt, and measure them against the photographs and the prompts.

    The noise of the k-th picture of a prompt depends on ``seed`` + k alone, as in `cictl generate`, so that stages and
    methods are compared on equal noise.

    Args:
        source: finetune, invert, another method, or base; None is the furthest stage that was run. The base draws the noun.
        step: what it had learned after so many steps; None is the last.
        out: folder of the results; None is outputs/evaluation/.

    Raises:
        UsageError: an unknown prompt set, a prompt without S*, the base without a noun, or nothing to measure with.
        StateError: nothing has been trained yet, or nothing of ``step`` has been kept.
        ModelAccessError, ResourceError: a model cannot be had.
    """
    config = configure(workspace, overrides or {}, upto=last_stage(source))
    _check_settings(config, source)
    job = _prepare(workspace, config, source, step, observe)
    folder = out or workspace.outputs / "evaluation"
    plans = _plans(job)
    drawn = draw_pictures(config, job.base, job.concept, plans, folder / PICTURES, observe, again="the same command")
    if len(drawn.blanked) == len(plans):
        raise CictlError(
            f"the base model's safety checker blanked all {len(plans)} pictures, so that nothing can be measured",
            "try other --prompts or another --seed; --set generate.safety_checker=off draws without it",
            slug="evaluation-all-blanked",
        )
    prompts = [prompt for prompt in job.asked.prompts for _ in range(job.count)]
    shown = {path: prompt for path, prompt in zip(drawn.paths, prompts, strict=True) if path not in drawn.blanked}
    columns = _measure(job, shown, observe)
    _judge(job, shown, columns)
    results = _results(job, plans, drawn.paths, shown, columns)
    sheet_path, results_path = folder / SHEET, folder / RESULTS
    write_png(sheet_path, _sheet(results, job.photographs, folder))
    save_json(results_path, results)
    return EvaluateOutcome(
        measured=results,
        kept=drawn.kept,
        blanked=[workspace.shown(path) for path in drawn.blanked],
        results=workspace.shown(results_path),
        sheet=workspace.shown(sheet_path),
    )


def require_measurable(workspace: Workspace, config: Config, observe: Observer) -> None:
    """What has to be there before a training that is to be evaluated: photographs, prompts, and networks that measure.

    Raises:
        UsageError, ModelAccessError, ResourceError: as :func:`run`.
    """
    _check_settings(config, None)
    choose_prompts(config, workspace.root, _recognise(config, find_photographs(workspace.images)))
    _find_metrics(config, observe)


def _prepare(workspace: Workspace, config: Config, source: Source | None, step: int | None, observe: Observer) -> _Job:
    concept = find_concept(workspace, source, observe, step)
    photographs = find_photographs(workspace.images)
    _warn_of_other_photographs(concept, photographs, observe)
    known = _recognise(config, photographs)
    asked = choose_prompts(config, workspace.root, known)
    base = find_base_of(workspace, config, concept, observe)
    metrics = _find_metrics(config, observe)  # before any picture is drawn, so that it is soon said what cannot be had
    return _Job(config, concept, base, metrics, photographs, asked, known)


def _check_settings(config: Config, source: Source | None) -> None:
    if not config.evaluate.dinov2 and not config.evaluate.clip:
        raise UsageError(
            "evaluate.dinov2 and evaluate.clip are both null, so that there is nothing to measure with",
            "set one of them in ci.yaml, such as evaluate.dinov2: facebook/dinov2-base",
            slug="nothing-to-measure-with",
        )
    if source == "base" and not config.evaluate.noun:
        raise UsageError(
            f"the untouched base model does not know {CONCEPT}",
            "say what to draw in its place, as in: --noun teapot",
            slug="base-without-noun",
        )


def _warn_of_other_photographs(concept: Concept, photographs: Sequence[Photograph], observe: Observer) -> None:
    if concept.source == "base":
        return
    first = concept.checkpoints[0].manifest
    if set(first["fingerprint"]["photographs"]) != {photograph.sha256 for photograph in photographs}:
        what = "stage 1" if first["stage"] == "invert" else TITLES[first["stage"]]
        observe(Warned(f"the photographs are not those that {what} was trained with; pictures are compared with those of now"))


def _recognise(config: Config, photographs: Sequence[Photograph]) -> ToyConcept | None:
    """The toybox's concept that these are photographs of, if its base model draws, in a size that its judge reads."""
    from cictl.evaluation.ground_truth import SIDE, recognise

    if config.model.id != "toybox" or _size(config) != (SIDE, SIDE):
        return None
    return recognise(np.asarray(open_upright(photograph.path)) for photograph in photographs)


def _size(config: Config) -> tuple[int, int]:
    settings = config.generate
    return settings.width or config.data.resolution, settings.height or config.data.resolution


def _find_metrics(config: Config, observe: Observer) -> dict[str, Located]:
    settings, found = config.evaluate, {}
    if settings.dinov2:
        found["dinov2"] = locate_metric(settings.dinov2, settings.dinov2_revision, "dinov2", observe)
    if settings.clip:
        found["clip"] = locate_metric(settings.clip, settings.clip_revision, "clip", observe)
    return found


def _plans(job: _Job) -> list[Plan]:
    names = job.concept.words()
    plans = []
    for prompt in job.asked.prompts:
        drawn = job.text(prompt) if job.concept.source == "base" else prompt
        for seed in range(job.config.seed, job.config.seed + job.count):
            plans.append(make_plan(job.config, job.base, job.concept, drawn, expand(drawn, names), seed))
    return plans


def _measure(job: _Job, shown: Mapping[Path, str], observe: Observer) -> _Columns:
    """The figures of pictures, given with their prompts. One network at a time is on the device, and no UNet."""
    from cictl.engine.runtime import Runtime
    from cictl.evaluation.clip_score import embed_with_clip
    from cictl.evaluation.dinov2 import embed_with_dinov2
    from cictl.evaluation.metrics import image_similarity, text_similarity

    count, columns = len(job.photographs), _Columns()
    with out_of_memory_explained(_LESS_MEMORY):
        device = Runtime.create(job.config.model.device, job.config.model.dtype).device
        if dinov2 := job.metrics.get("dinov2"):
            observe(PhaseStarted(f"looking at {len(shown)} pictures with {dinov2.id}"))
            embeddings = embed_with_dinov2(dinov2, _opened(job.photographs, shown), device)
            columns.figures["dinov2"] = image_similarity(embeddings[count:], embeddings[:count]).tolist()
        if clip := job.metrics.get("clip"):
            observe(PhaseStarted(f"looking at {len(shown)} pictures with {clip.id}"))
            rows = {prompt: row for row, prompt in enumerate(dict.fromkeys(shown.values()))}
            embeddings, texts = embed_with_clip(
                clip, _opened(job.photographs, shown), [job.text(prompt) for prompt in rows], device
            )
            own = texts[[rows[prompt] for prompt in shown.values()]]
            columns.figures["clip_i"] = image_similarity(embeddings[count:], embeddings[:count]).tolist()
            columns.figures["clip_t"] = text_similarity(embeddings[count:], own).tolist()
    return columns


def _opened(photographs: Sequence[Photograph], paths: Iterable[Path]) -> Iterator[Image.Image]:
    """The photographs, whole and upright, then the pictures; one after another."""
    yield from (open_upright(photograph.path) for photograph in photographs)
    yield from (_open(path) for path in paths)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _judge(job: _Job, shown: Mapping[Path, str], columns: _Columns) -> None:
    """Add what the toybox's judge reads, and, of a concept that is known, how that fits what was asked for."""
    from cictl.evaluation.ground_truth import SIDE, judge_pictures, judgement, tasks_by_prompt

    if job.base.id != "toybox" or _size(job.config) != (SIDE, SIDE):
        return
    columns.readings = judge_pictures(job.base.folder, [np.asarray(_open(path)) for path in shown])
    tasks = tasks_by_prompt(job.known) if job.known else {}
    if job.known and all(prompt in tasks for prompt in shown.values()):
        read = zip(shown.values(), columns.readings, strict=True)
        judged = [judgement(job.known, tasks[prompt], reading) for prompt, reading in read]
        for name in ("fidelity", "alignment", "leakage"):
            columns.figures[name] = [getattr(one, name) for one in judged]


def _results(job: _Job, plans: Sequence[Plan], paths: Sequence[Path], shown: Mapping[Path, str], columns: _Columns) -> Results:
    place = {path: index for index, path in enumerate(shown)}

    def picture(plan: Plan, path: Path) -> PictureResult:
        index = place.get(path)
        figures = {} if index is None else {name: values[index] for name, values in columns.figures.items()}
        reading = columns.readings[index] if index is not None and columns.readings else None
        return PictureResult(f"{PICTURES}/{path.name}", plan.seed, figures, reading)

    prompts = []
    for number, prompt in enumerate(job.asked.prompts):
        part = slice(number * job.count, (number + 1) * job.count)
        own = [picture(plan, path) for plan, path in zip(plans[part], paths[part], strict=True)]
        figures = {name: summarize([one.figures[name] for one in own if one.figures]) for name in columns.figures}
        prompts.append(PromptResult(prompt, job.text(prompt), figures, own))
    return Results(
        cictl=cictl.__version__,
        concept=job.config.concept.name,
        kind=job.config.concept.kind,
        stage=job.concept.source,
        steps=job.concept.steps,
        base=_named(job.base),
        concept_hash=job.concept.hash,
        dinov2=_named(job.metrics["dinov2"]) if "dinov2" in job.metrics else None,
        clip=_named(job.metrics["clip"]) if "clip" in job.metrics else None,
        prompt_set=job.asked.name,
        noun=job.config.evaluate.noun,
        seed=job.config.seed,
        count=job.count,
        sampling={name: getattr(plans[0], name) for name in _SAMPLING},
        photographs=sorted(photograph.path.name for photograph in job.photographs),
        known_as=job.known.name if job.known else None,
        std=STD,
        overall={name: over_prompts([one.figures[name] for one in prompts]) for name in columns.figures},
        prompts=prompts,
    )


def _named(located: Located) -> dict[str, str]:
    return {"id": located.id, "identity": located.identity}


def _sheet(results: Results, photographs: Sequence[Photograph], folder: Path) -> Image.Image:
    """The photographs, and below them a row for each prompt with its figures."""
    own = sorted(photographs, key=lambda photograph: photograph.path.name)
    rows = [Row("the photographs", [open_upright(photograph.path) for photograph in own])]
    for one in results.prompts:
        figures = "  ".join(f"{FIGURES[name]} {score.mean:.3f}" for name, score in one.figures.items() if score.mean is not None)
        rows.append(Row(f"{one.prompt}   {figures}", [_open(folder / picture.path) for picture in one.pictures]))
    return sheet(rows)

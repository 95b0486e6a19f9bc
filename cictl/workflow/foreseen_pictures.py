"""`--dry-run` of what draws but `compare`: what would be drawn, and what of it is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cictl.data.photographs import find_photographs
from cictl.data.png import require_writable
from cictl.events import Note, Observer
from cictl.files import is_there
from cictl.processes import launched
from cictl.workflow import attention, check, evaluate, generate, preview_aux
from cictl.workflow.concept import Source, find_concept, last_stage
from cictl.workflow.drawing import avoid_of, strength_of, without_effect
from cictl.workflow.evaluation_files import RESULTS, SHEET, folders
from cictl.workflow.findings import DrawingEstimate
from cictl.workflow.measuring import figures_of, find_terms, judged_as
from cictl.workflow.pictures import foresee_base_of, which_are_there
from cictl.workflow.plans import listed
from cictl.workflow.stage import configure
from cictl.workspace import Workspace


@dataclass(frozen=True)
class ForeseenPictures:
    """What `cictl generate` would do.

    Attributes:
        stage, steps: whose weights would draw, after how many of its steps.
        base: ``id`` and ``identity``, which is None where the model is still to be downloaded. Then ``kept``, ``pictures`` and
            ``grid`` are None as well, since names of files depend on it.
        count, kept: how many pictures there would be in all, and how many of them are there.
        pictures: ``path``, ``prompt`` and ``seed`` of each, and whether it is there (``kept``).
        batch_size: how many are drawn at a time.
        size: width and height in pixels.
        sampling: denoising steps, sampler, guidance, and strength and avoid as far as they have an effect.
        grid: where the sheet would be written, if one was asked for.
        estimate: of what is to be drawn; None if all is there.
    """

    stage: str
    steps: int
    base: dict[str, str | None]
    count: int
    kept: int | None
    pictures: list[dict[str, Any]] | None
    batch_size: int
    size: tuple[int, int]
    sampling: dict[str, Any]
    grid: str | None
    estimate: DrawingEstimate | None


@dataclass(frozen=True)
class ForeseenEvaluation:
    """What an evaluation would do. What has the name of a field of its results means the same.

    Attributes:
        base, dinov2, clip: ``id`` and ``identity``, which is None where the model is still to be downloaded.
        prompts: as written.
        sampling: strength and avoid, as far as they have an effect.
        figures: that would be computed.
        pictures, kept: how many there would be in all, and how many of them are there; None where the base model, and so their
            names, are not known yet.
        results, sheet: where they would be written.
        replaced: whether results are there already.
    """

    stage: str
    steps: int
    base: dict[str, str | None]
    dinov2: dict[str, str | None] | None
    clip: dict[str, str | None] | None
    prompt_set: str
    prompts: list[str]
    noun: str | None
    seed: int
    count: int
    sampling: dict[str, float]
    known_as: str | None
    figures: list[str]
    pictures: int
    kept: int | None
    results: str
    sheet: str
    replaced: bool


@dataclass(frozen=True)
class ForeseenAttention:
    """What a look at the attention would do.

    Attributes:
        photographs, pictures: how many there are to look at, and to draw.
        sheet, kept: where it would be written, and whether it is there; None where the base model, and so its name, is not
            known yet.
    """

    photographs: int
    pictures: int
    sheet: str | None
    kept: bool | None


@dataclass(frozen=True)
class ForeseenPreview:
    """What `cictl preview-aux` would do.

    Attributes:
        pictures, kept: how many there would be in all, and how many of them are there.
        sheet: where it would be written. It and ``kept`` are None where the base model, and so the names, are not known yet.
    """

    pictures: int
    kept: int | None
    sheet: str | None


def foresee_pictures(
    workspace: Workspace,
    prompts: Sequence[str],
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source | None = None,
    step: int | None = None,
    out: Path | None = None,
    grid: bool = False,
) -> ForeseenPictures:
    """Look at what :func:`cictl.workflow.generate.run` would do with the same arguments.

    Raises:
        UsageError, StateError, ModelAccessError, ResourceError: as that.
    """
    job = generate.prepare(workspace, prompts, observe, overrides=overrides, source=source, step=step, out=out)
    config, settings = job.config, job.config.generate
    base = foresee_base_of(workspace, config, job.concept, observe)
    plans = job.plans(base) if base else []
    paths, there = [job.folder / plan.file_name for plan in plans], which_are_there(plans, job.folder)
    count = len(job.texts) * settings.count
    missing = count - sum(there)
    if False in there:
        require_writable(paths[there.index(False)])
    return ForeseenPictures(
        stage=job.concept.source,
        steps=job.concept.steps,
        base={"id": config.model.id, "identity": base.identity if base else None},
        count=count,
        kept=sum(there) if base else None,
        pictures=[
            {**one, "kept": kept} for one, kept in zip(listed(workspace, paths, plans), there, strict=True)
        ] if base else None,
        batch_size=settings.batch_size,
        size=config.picture_size,
        sampling={
            "steps": settings.steps, "sampler": settings.sampler, "guidance": settings.guidance,
            "strength": strength_of(config, job.concept), "avoid": avoid_of(config, job.concept),
        },
        grid=workspace.shown(job.grid(paths)) if grid and base else None,
        estimate=check.expect_pictures(config, base, missing, observe, launched()[1]) if missing else None,
    )  # fmt: skip


def foresee_evaluation(
    workspace: Workspace,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source | None = None,
    step: int | None = None,
    out: Path | None = None,
) -> ForeseenEvaluation:
    """Look at what :func:`cictl.workflow.evaluate.run` would do with the same arguments.

    Raises:
        UsageError, StateError, ModelAccessError, ResourceError: as that.
    """
    config = configure(workspace, overrides or {}, upto=last_stage(source))
    evaluate.check_settings(config, source)
    concept = find_concept(workspace, source, observe, step)
    for useless in without_effect(config, concept):
        observe(Note(useless))
    folder, pictures = folders(workspace, concept, step, out)
    terms = find_terms(workspace, config, observe, download=False)
    evaluate.warn_of_other_photographs(concept, terms.photographs, observe)
    base = foresee_base_of(workspace, config, concept, observe)
    require_writable(folder / SHEET)

    def named(model: str | None, which: str) -> dict[str, str | None] | None:
        return {"id": model, "identity": terms.metrics[which].identity if which in terms.metrics else None} if model else None

    return ForeseenEvaluation(
        stage=concept.source,
        steps=concept.steps,
        base={"id": config.model.id, "identity": base.identity if base else None},
        dinov2=named(config.evaluate.dinov2, "dinov2"),
        clip=named(config.evaluate.clip, "clip"),
        prompt_set=terms.asked.name,
        prompts=terms.asked.prompts,
        noun=config.evaluate.noun,
        seed=config.seed,
        count=terms.count,
        sampling={"strength": strength_of(config, concept), "avoid": avoid_of(config, concept)},
        known_as=judged_as(terms),
        figures=figures_of(terms),
        pictures=len(terms.asked.prompts) * terms.count,
        kept=sum(which_are_there(evaluate.plans_of(config, terms, concept, base), pictures)) if base else None,
        results=workspace.shown(folder / RESULTS),
        sheet=workspace.shown(folder / SHEET),
        replaced=is_there(folder / RESULTS),
    )


def foresee_attention(
    workspace: Workspace,
    prompt: str | None,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source = "invert",
    count: int = 1,
) -> ForeseenAttention:
    """Look at what :func:`cictl.workflow.attention.run` would do with the same arguments.

    Raises:
        UsageError, StateError, ModelAccessError, ResourceError: as that, but for a prompt that is too long: the model reads it.
    """
    job = attention.prepare(workspace, prompt, observe, overrides=overrides, source=source, count=count, download=False)
    path = job.path(workspace) if job else None
    kept = attention.kept_shares(path) is not None if path else None
    if path and not kept:
        require_writable(path)
    return ForeseenAttention(
        photographs=len(find_photographs(workspace.images)),
        pictures=count,
        sheet=workspace.shown(path) if path else None,
        kept=kept,
    )


def foresee_preview(workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None) -> ForeseenPreview:
    """Look at what :func:`cictl.workflow.preview_aux.run` would do with the same arguments.

    Raises:
        UsageError, StateError, ModelAccessError, ResourceError: as that.
    """
    job = preview_aux.prepare(workspace, observe, overrides=overrides)
    count = len(job.prompts) * job.config.generate.count
    base = foresee_base_of(workspace, job.config, job.concept, observe)
    if base is None:
        return ForeseenPreview(count, None, None)
    plans = job.plans(base)
    paths, there = [job.folder / plan.file_name for plan in plans], which_are_there(plans, job.folder)
    sheet = preview_aux.sheet_of(workspace, paths)
    require_writable(paths[there.index(False)] if False in there else sheet)
    return ForeseenPreview(count, sum(there), workspace.shown(sheet))

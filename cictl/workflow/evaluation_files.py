"""The files of an evaluation: where they lie, and what is written of it, results.json and a sheet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

import cictl
from cictl.data.photographs import Photograph, open_upright
from cictl.data.png import Row, sheet, write_png
from cictl.evaluation.scores import over_prompts, summarize
from cictl.models.locate import Located
from cictl.records import latest_checkpoint, step_folder
from cictl.workflow.concept import Concept, furthest_stage
from cictl.workflow.measuring import Columns, DrawnConcept, Terms, judged_as
from cictl.workflow.plans import Plan
from cictl.workflow.provenance import trained
from cictl.workflow.results import FIGURES, STD, PictureResult, PromptResult, Results, save_json
from cictl.workspace import Workspace

RESULTS = "results.json"
SHEET = "sheet.png"
_FOLDER = "evaluation"
_PICTURES = "pictures"
_PROMPTS_ON_THE_SHEET = 100  # of thousands it would take gigabytes, and no program opens it
_SAMPLING = ("steps", "guidance", "sampler", "negative", "width", "height", "dtype", "strength", "avoid", "safety_checker")


def folders(workspace: Workspace, concept: Concept, step: int | None, out: Path | None) -> tuple[Path, Path]:
    """Where results and pictures lie; the pictures of all stages and steps in one folder, the same ones whoever asks for them.

    Args:
        step: that was asked for; None is the last.
        out: for both. None is outputs/evaluation/ for the furthest stage as it ended; in it there is a folder with the results
            of each other stage and step.

    Raises:
        UsageError: ``out`` is the folder of the photographs.
    """
    if out:
        return workspace.place_for_pictures(out), workspace.place_for_pictures(out / _PICTURES)
    folder, last = workspace.outputs / _FOLDER, None
    if concept.source != furthest_stage(workspace):
        folder = folder / concept.source
    if step is not None and concept.source != "base":
        last, _ = latest_checkpoint(workspace.stage_folder(concept.source), verify=False)
    folder = folder if step is None or (last and last.step == step) else folder / step_folder(step)
    return folder, workspace.outputs / _FOLDER / _PICTURES


def save(terms: Terms, drawn: DrawnConcept, columns: Columns, circumstances: dict[str, Any]) -> Results:
    """Write what was found into the concept's folder.

    Args:
        circumstances: under which it was found.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    results = _results(terms, drawn, columns, circumstances)
    write_png(drawn.folder / SHEET, _sheet(results, terms.photographs, drawn.folder))
    save_json(drawn.folder / RESULTS, results)
    return results


def _results(terms: Terms, drawn: DrawnConcept, columns: Columns, circumstances: dict[str, Any]) -> Results:
    place = {path: index for index, path in enumerate(drawn.shown)}

    def picture(plan: Plan, path: Path) -> PictureResult:
        index = place.get(path)
        figures = {} if index is None else {name: values[index] for name, values in columns.figures.items()}
        reading = columns.readings[index] if index is not None and columns.readings else None
        return PictureResult(Path(os.path.relpath(path, drawn.folder)).as_posix(), plan.seed, figures, reading)

    prompts, config = [], drawn.config
    photographs = sorted(terms.photographs, key=lambda photograph: photograph.name)
    for number, prompt in enumerate(terms.asked.prompts):
        part = slice(number * terms.count, (number + 1) * terms.count)
        own = [picture(plan, path) for plan, path in zip(drawn.plans[part], drawn.pictures.paths[part], strict=True)]
        figures = {name: summarize([one.figures[name] for one in own if one.figures]) for name in columns.figures}
        prompts.append(PromptResult(prompt, terms.text(prompt), figures, own))
    return Results(
        cictl=cictl.__version__,
        concept=config.concept.name,
        kind=config.concept.kind,
        stage=drawn.concept.source,
        steps=drawn.concept.steps,
        base=_named(drawn.base),
        concept_hash=drawn.concept.hash,
        trained=trained(drawn.concept),
        dinov2=_named(terms.metrics["dinov2"]) if "dinov2" in terms.metrics else None,
        clip=_named(terms.metrics["clip"]) if "clip" in terms.metrics else None,
        prompt_set=terms.asked.name,
        noun=config.evaluate.noun,
        seed=config.seed,
        count=terms.count,
        sampling={name: getattr(drawn.plans[0], name) for name in _SAMPLING},
        circumstances=circumstances,
        photographs=[photograph.name for photograph in photographs],
        photographs_sha256={photograph.name: photograph.sha256 for photograph in photographs},
        known_as=judged_as(terms),
        std=STD,
        overall={name: over_prompts([one.figures[name] for one in prompts]) for name in columns.figures},
        prompts=prompts,
    )


def _named(located: Located) -> dict[str, str]:
    return {"id": located.id, "identity": located.identity}


def _sheet(results: Results, photographs: Sequence[Photograph], folder: Path) -> Image.Image:
    """The photographs, and below them a row for each prompt with its figures."""
    own = sorted(photographs, key=lambda photograph: photograph.name)
    shown, total = results.prompts[:_PROMPTS_ON_THE_SHEET], len(results.prompts)
    below = f", and below them the first {len(shown)} of {total} prompts" if len(shown) < total else ""
    rows = [Row(f"the photographs{below}", [open_upright(photograph.path) for photograph in own])]
    for one in shown:
        figures = [f"{FIGURES[name]} {score.mean:.3f}" for name, score in one.figures.items() if score.mean is not None]
        heading = f"{one.prompt}: {', '.join(figures)}" if figures else one.prompt
        rows.append(Row(heading, [Path(os.path.normpath(folder / picture.path)) for picture in one.pictures]))
    return sheet(rows)

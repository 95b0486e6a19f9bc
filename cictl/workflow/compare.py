"""`cictl compare`: the paper's Table 1 for one concept: every method trained on these photographs, and measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

import cictl
from cictl.config import NEED_A_NOUN, STAGES, Config
from cictl.data.photographs import find_photographs, open_upright
from cictl.data.png import opened, require_writable
from cictl.errors import CictlError
from cictl.events import Note, Observer, Warned
from cictl.workflow import evaluate, preview_aux
from cictl.workflow.baseline import require_noun
from cictl.workflow.comparison_page import PageRow, render
from cictl.workflow.comparison_table import BEST, LAST, STD, CompareOutcome, Row, as_stored, facts, rows_of
from cictl.workflow.concept import Source
from cictl.workflow.evaluation_files import SHEET
from cictl.workflow.event_log import read_losses
from cictl.workflow.measuring import Terms, figures_of
from cictl.workflow.provenance import unlike
from cictl.workflow.results import FIGURES, Results, axes, save_json, save_text
from cictl.workflow.rows import ROWS, choose_rows, draw_and_measure, folder_of, title_of
from cictl.workflow.shared_base import SharedBase
from cictl.workflow.stage import configure
from cictl.workflow.trainings import Failure, missing_rows, needed_memory, train, warn_of_memory
from cictl.workspace import Workspace

FOLDER = "compare"
RESULTS, REPORT = "results.json", "report.html"
_DRAWN_ALIKE = ("generate", "evaluate")
_PROMPTS_ON_THE_PAGE = 50  # of thousands the page would be larger than a browser opens, and its pictures than the memory


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    methods: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    drawing: Mapping[str, Any] | None = None,
    last_alone: bool = False,
) -> CompareOutcome:
    """Train what is not trained yet, then draw and measure the same prompts with equal noise for every method.

    Args:
        methods: the rows, by their names in :data:`ROWS`; none are all.
        overrides: of ci.yaml, for training and drawing.
        drawing: more of them that shape the pictures and figures alone.
        last_alone: leave out what was kept along the way.

    Raises:
        UsageError: an unknown method, or no noun where one is needed.
        StateError: what a method was trained with has changed.
        CictlError: what concerns all trainings, or no row is left; see :func:`train`.
        Interrupted: by a signal; the same command goes on.
    """
    chosen, overrides, config = begin(workspace, methods, overrides or {}, drawing or {})
    terms = evaluate.require_measurable(workspace, config, observe)  # before hours of training
    require_writable(workspace.outputs / FOLDER / chosen[0] / SHEET)
    last_alone = last_alone or not can_tell_the_best(terms, observe)
    warn_of_memory(workspace, chosen, needed_memory(workspace, chosen, overrides, observe), overrides, observe)
    failed = train(workspace, chosen, overrides, observe)
    there = [row for row in chosen if row not in {one.method for one in failed}]
    alike = _drawn_alike(config)
    folder, shared = workspace.outputs / FOLDER, SharedBase()
    auxiliary = _auxiliary(workspace, config, alike, shared, observe) if there[-1] in STAGES else []

    def leave_out(row: Source, error: CictlError) -> None:
        failed.append(Failure.of(row, error))
        if len(failed) < len(chosen):
            observe(Warned(f"{title_of(row)} left out, the others go on: {failed[-1].reason}"))

    found = draw_and_measure(
        workspace, there, observe, out=folder, overrides=alike, last_alone=last_alone, shared=shared, on_blank=leave_out
    )
    if not found:
        raise missing_rows(failed, [])
    measured = [one for row in found for one in rows_of(row, found[row])]
    rows = [row for row, _ in measured]
    outcome = _outcome(workspace, config, [results for _, results in measured], rows, failed, last_alone=last_alone)
    save_json(folder / RESULTS, as_stored(outcome))
    save_text(folder / REPORT, _page(workspace, outcome, [results for _, results in measured], auxiliary))
    return outcome


def begin(
    workspace: Workspace, methods: Sequence[str], overrides: Mapping[str, Any], drawing: Mapping[str, Any]
) -> tuple[list[Source], dict[str, Any], Config]:
    """The rows, the overrides of every training, and the settings that all are drawn with.

    Raises:
        UsageError: as :func:`run`.
    """
    chosen, told = choose_rows(methods), dict(overrides)
    config = configure(workspace, {**overrides, **drawing})
    if any(row == "base" or row in NEED_A_NOUN for row in chosen):
        told["evaluate.noun"] = require_noun(config, "a comparison with other methods", "cictl compare")
    return chosen, told, config


def can_tell_the_best(terms: Terms, observe: Observer) -> bool:
    """Whether the figures rank what a training has kept along the way; if not, a note says why."""
    if axes(dict.fromkeys(figures_of(terms))):
        return True
    why = "evaluate.clip is null, so that no figure says how well prompts are obeyed and no result can be called the best"
    observe(Note(f"{why}: what was kept along the way is not drawn"))
    return False


def _drawn_alike(config: Config) -> dict[str, Any]:
    """Everything that shapes pictures and figures, so that what --set gave one of the trainings shapes none of them alone."""
    groups = {group: getattr(config, group).model_dump() for group in _DRAWN_ALIKE}
    alike = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    alike |= {f"model.{key}": getattr(config.model, key) for key in ("id", "revision", "device", "dtype")}
    return {**alike, "seed": config.seed, "data.resolution": config.data.resolution}


def _outcome(
    workspace: Workspace, config: Config, measured: list[Results], rows: list[Row], failed: list[Failure], *, last_alone: bool
) -> CompareOutcome:
    one, pair = measured[0], axes(measured[0].overall)
    return CompareOutcome(
        cictl=cictl.__version__,
        concept=config.concept.name,
        base=one.base,
        noun=one.noun,
        prompt_set=one.prompt_set,
        count=one.count,
        seed=one.seed,
        sampling={**one.sampling, "strength": config.generate.strength, "avoid": config.generate.avoid},
        dinov2=one.dinov2,
        clip=one.clip,
        known_as=one.known_as,
        std=STD,
        chosen=LAST if last_alone or pair is None else BEST.format(*(FIGURES[name] for name in pair)),
        unlike=unlike(training for results in measured for training in results.trained),
        rows=rows,
        failed=failed,
        results=workspace.shown(workspace.outputs / FOLDER / RESULTS),
        report=workspace.shown(workspace.outputs / FOLDER / REPORT),
    )


def _auxiliary(
    workspace: Workspace, config: Config, alike: Mapping[str, Any], shared: SharedBase, observe: Observer
) -> list[Image.Image]:
    """What the auxiliary token of each photograph gives, in the order of their names."""
    if not config.invert.auxiliary_vectors:
        return []
    observe(Note("drawing what each photograph has of its own"))
    drawn = preview_aux.draw(workspace, observe, overrides={**alike, "generate.count": 1}, shared=shared)
    return [opened(own[0]) for own in drawn.own]


def _page(workspace: Workspace, outcome: CompareOutcome, measured: Sequence[Results], auxiliary: Sequence[Image.Image]) -> str:
    rows = []
    for row, results in zip(outcome.rows, measured, strict=True):
        last, log = row.which != "best", workspace.log_file(row.method)
        folder = folder_of(workspace.outputs / FOLDER / row.method, None if last else row.steps)
        pictures = [opened(folder / prompt.pictures[0].path) for prompt in results.prompts[:_PROMPTS_ON_THE_PAGE]]
        losses = [(step, terms["diffusion"]) for step, terms in read_losses(log)] if last and log.exists() else []
        rows.append(PageRow(row.name, ROWS.index(row.method), last, results.overall, pictures, losses))
    found = sorted(find_photographs(workspace.images), key=lambda photograph: photograph.name)
    photographs = [open_upright(photograph.path) for photograph in found]
    prompts = [prompt.prompt for prompt in measured[0].prompts]
    shown, title = prompts[:_PROMPTS_ON_THE_PAGE], f"{outcome.concept}: methods compared"
    return render(title, facts(outcome), FIGURES, photographs, shown, rows, auxiliary, unseen=len(prompts) - len(shown))

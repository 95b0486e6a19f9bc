"""`cictl generate`: pictures of prompts with S*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cictl.config import Config
from cictl.data.png import Row, sheet, write_png
from cictl.data.prompts import expand, mentions_concept, require_concept
from cictl.errors import UsageError
from cictl.events import Note, Observer, ignore
from cictl.models.locate import Located
from cictl.placeholders import CONCEPT
from cictl.processes import ALONE, Processes, join
from cictl.workflow.concept import Concept, Source, find_concept, last_stage
from cictl.workflow.drawing import without_effect, words_of
from cictl.workflow.pictures import draw_pictures, find_base_of
from cictl.workflow.plans import Plan, listed, make_plans, sheet_name
from cictl.workflow.stage import configure
from cictl.workspace import Workspace, slug


@dataclass(frozen=True)
class GenerateOutcome:
    """What was asked for: the pictures, and the grid if one was made.

    ``kept`` of the pictures were there already; ``blanked`` are the paths of those that the safety checker blanked.
    """

    pictures: list[dict[str, Any]]
    kept: int
    grid: str | None
    blanked: list[str]


@dataclass(frozen=True)
class Job:
    """What is to be drawn, and where.

    Attributes:
        texts: each prompt as the tokenizer reads it, by the prompt as written.
        folder: of the pictures.
    """

    config: Config
    concept: Concept
    texts: Mapping[str, str]
    folder: Path

    def plans(self, base: Located) -> list[Plan]:
        """Of all pictures, prompt by prompt."""
        return make_plans(self.config, base, self.concept, self.texts.items(), self.config.generate.count)

    def grid(self, paths: Sequence[Path]) -> Path:
        """Where the sheet of these pictures lies."""
        return self.folder / sheet_name(f"{slug(next(iter(self.texts)))}-grid", paths)


def run(
    workspace: Workspace,
    prompts: Sequence[str],
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    source: Source | None = None,
    step: int | None = None,
    out: Path | None = None,
    grid: bool = False,
    metadata: bool = True,
) -> GenerateOutcome:
    """Make ``generate.count`` pictures of each prompt, with seeds from ``seed`` on; several processes share them.

    Args:
        source: finetune, invert, another method, or base; None is the furthest stage that was run.
        step: what it had learned after so many steps; None is the last.
        out: folder of the pictures; None is outputs/.
        grid: also write a sheet with a row for each prompt.
        metadata: whether the files say how they were made.

    Raises:
        UsageError: a prompt without S*, or with S* on the untouched base; ``out`` is the folder of the photographs.
        StateError: nothing has been trained yet, or nothing of ``step`` has been kept.
    """
    processes = join()
    observe = observe if processes.first else ignore
    job = prepare(workspace, prompts, observe, overrides=overrides, source=source, step=step, out=out, processes=processes)
    base = find_base_of(workspace, job.config, job.concept, observe)
    plans = job.plans(base)
    drawn = draw_pictures(
        job.config, base, job.concept, plans, job.folder, observe,
        again="the same command", metadata=metadata, processes=processes,
    )  # fmt: skip
    return GenerateOutcome(
        pictures=listed(workspace, drawn.paths, plans),
        kept=drawn.kept,
        grid=workspace.shown(_write_grid(job, drawn.paths)) if grid and processes.first else None,
        blanked=[workspace.shown(path) for path in drawn.blanked],
    )


def prepare(
    workspace: Workspace,
    prompts: Sequence[str],
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None,
    source: Source | None,
    step: int | None,
    out: Path | None,
    processes: Processes = ALONE,
) -> Job:
    """What is to be drawn, all but the base model.

    Raises:
        UsageError, StateError: as :func:`run`.
    """
    _check_prompts(prompts, source)
    folder = workspace.place_for_pictures(out or workspace.outputs)
    config = configure(workspace, overrides or {}, upto=last_stage(source))
    concept = processes.share(lambda: find_concept(workspace, source, observe, step))
    for useless in without_effect(config, concept):
        observe(Note(useless))
    names = words_of(concept)
    return Job(config, concept, {prompt: expand(prompt, names) for prompt in prompts}, folder)


def _check_prompts(prompts: Sequence[str], source: Source | None) -> None:
    if not prompts:
        raise UsageError("there is no prompt", 'for example: cictl generate "a photo of S* in the snow"', slug="prompt-missing")
    for prompt in prompts:
        if not prompt.strip():
            raise UsageError("a prompt is empty", 'for example: cictl generate "a photo of S* in the snow"', slug="prompt-empty")
        if source == "base" and mentions_concept(prompt):
            raise UsageError(
                f"{prompt!r} has {CONCEPT}, which the untouched base model does not know",
                "write what it is in words, or leave out --stage base",
                slug="prompt-with-concept",
            )
        if source != "base":
            require_concept(prompt, command="cictl generate", otherwise="--stage base draws without it")


def _write_grid(job: Job, paths: Sequence[Path]) -> Path:
    count = job.config.generate.count
    rows = [Row(prompt, paths[index * count : (index + 1) * count]) for index, prompt in enumerate(job.texts)]
    path = job.grid(paths)
    write_png(path, sheet(rows))
    return path

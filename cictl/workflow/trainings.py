"""The trainings of a comparison: which fit into the memory, and what is left of the rows when one of them fails."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cictl.config import METHODS, STAGES, Stage, settings_of
from cictl.errors import CictlError, ModelAccessError, ResourceError, StateError
from cictl.events import Observer, PhaseStarted, Warned
from cictl.records import latest_checkpoint
from cictl.sizes import size_in_words
from cictl.workflow import baseline, finetune, invert
from cictl.workflow.concept import Source
from cictl.workflow.pins import base_on_disk, read_pins
from cictl.workflow.rows import ROWS, title_of
from cictl.workflow.stage import configure, is_over
from cictl.workflow.training import TrainingOutcome
from cictl.workspace import Workspace

# Of one training alone: all others (photographs, settings, the base model, the disk) would meet the next one as well.
_OF_ONE_ALONE = ("memory-full", "class-pictures-all-blanked", "clip-of-another-width", "checkpoints-damaged")
_KINDS = (StateError, ModelAccessError, ResourceError)


@dataclass(frozen=True)
class Failure:
    """A row that is missing from a comparison, since its training failed or nothing that it drew can be measured.

    Attributes:
        title: what the table would call it.
        slug, message, hint, exit_code: of the error.
    """

    method: Source
    title: str
    slug: str
    message: str
    hint: str
    exit_code: int

    @classmethod
    def of(cls, row: Source, error: CictlError) -> Failure:
        """What ``error`` says, without it: its traceback may hold a model, and with it the memory that the next one needs."""
        return cls(row, title_of(row), error.slug, error.message, error.hint, error.exit_code)

    @property
    def reason(self) -> str:
        """What went wrong, on one line."""
        return " ".join(self.message.split())


def stages_of(rows: Sequence[Source]) -> list[Stage]:
    """What has to be trained for ``rows``, in that order."""
    ours: Sequence[Stage] = STAGES if "finetune" in rows else STAGES[:1] if "invert" in rows else ()
    return [*(row for row in METHODS if row in rows), *ours]


def told(stage: Stage, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What ``stage`` is given of the overrides: our own stages are not told the noun."""
    return {key: value for key, value in overrides.items() if stage in METHODS or key != "evaluate.noun"}


def train(workspace: Workspace, rows: Sequence[Source], overrides: Mapping[str, Any], observe: Observer) -> list[Failure]:
    """Train what ``rows`` need and is not trained yet. What concerns one training alone fails its rows; the others go on.

    Returns:
        The rows that are missing, if any are left.

    Raises:
        CictlError: what would meet the next training as well, or no row is left.
    """
    failed: dict[Source, Failure] = {}
    for stage in stages_of(rows):
        if failed.keys() & {stage, "invert"}:  # stage 2 cannot be without stage 1
            continue
        try:
            train_stage(workspace, stage, overrides, observe)
        except CictlError as error:
            if error.slug not in _OF_ONE_ALONE:
                raise
            lost = [row for row in rows if stage in stages_of([row])]
            failed |= {row: Failure.of(row, error) for row in lost}
            if len(failed) < len(rows):
                names = " and ".join(title_of(row) for row in lost)
                observe(Warned(f"{names} left out, the others go on: {failed[lost[0]].reason}"))
        gc.collect()
    if len(failed) == len(rows):
        raise missing_rows(list(failed.values()), [])
    return list(failed.values())


def train_stage(
    workspace: Workspace, stage: Stage, overrides: Mapping[str, Any], observe: Observer, *, dry_run: bool = False
) -> TrainingOutcome:
    """Train one stage or method with what it is to be told; see :func:`cictl.workflow.training.run_stage`."""
    own = told(stage, overrides)
    if stage in METHODS:
        return baseline.run(workspace, stage, observe, overrides=own, dry_run=dry_run)
    run = invert.run if stage == "invert" else finetune.run
    return run(workspace, observe, overrides=own, dry_run=dry_run)


def missing_rows(failed: Sequence[Failure], there: Sequence[Source]) -> CictlError:
    """The error that a comparison ends with where rows have ``failed`` and others are ``there``, of the kind of the first."""
    first = failed[0]
    kind = next((kind for kind in _KINDS if kind.exit_code == first.exit_code), CictlError)
    message = [line for one in failed for line in f"{one.title} is not in the comparison: {one.message}".splitlines()]
    hints = list(dict.fromkeys(one.hint for one in failed))
    if any(one.slug in _OF_ONE_ALONE for one in failed):  # pictures that were blanked would be the same ones again
        hints.append("the same command tries again what is missing, and that alone")
    if there:
        hints.append(f"--methods {','.join(there)} goes without")
    return kind(message, "\n".join(hints), slug=first.slug)


def needed_memory(
    workspace: Workspace, rows: Sequence[Source], overrides: Mapping[str, Any], observe: Observer
) -> dict[Stage, int]:
    """Bytes that each training which is still to be done takes; of a model that is not on this machine nothing is known."""
    needed: dict[Stage, int] = {}
    for stage in stages_of(rows):
        config = configure(workspace, told(stage, overrides), upto=stage)
        settings = settings_of(config, stage)
        checkpoint, _ = latest_checkpoint(workspace.stage_folder(stage), verify=False)
        if checkpoint and is_over(stage, checkpoint, settings):
            continue
        try:
            base = base_on_disk(config, read_pins(workspace, config, stage))
        except ModelAccessError:
            continue
        if not needed:
            observe(PhaseStarted("estimating memory"))
        from cictl.engine.runtime import Runtime
        from cictl.workflow.fitting import memory_of_step

        runtime = Runtime.create(config.model.device, config.model.dtype)
        needed[stage] = memory_of_step(config, stage, base, runtime.device, runtime.dtype)
    return needed


def warn_of_memory(
    workspace: Workspace, rows: Sequence[Source], needed: Mapping[Stage, int], overrides: Mapping[str, Any], observe: Observer
) -> None:
    """Say which trainings need more memory than is free now, and how to go without them.

    Args:
        needed: bytes of each.
    """
    if not needed:
        return
    from cictl.engine.runtime import Runtime
    from cictl.workflow.fitting import free_memory

    config = configure(workspace, overrides)
    device = Runtime.create(config.model.device, config.model.dtype).device
    free = free_memory(device)
    if too_large := {stage: size for stage, size in needed.items() if size > free}:
        has = size_in_words(free, "GiB", decimals=1)
        sizes = ", ".join(
            f"{title_of(stage)} about {size_in_words(size, 'GiB', decimals=1)}" for stage, size in too_large.items()
        )
        left = [row for row in ROWS if row in rows and not too_large.keys() & stages_of([row])]
        without = f"; --methods {','.join(left)} goes without" if left else ""
        observe(
            Warned(
                f"more memory is needed than the {has} that are free on {device}: {sizes}. What does not "
                f"fit is left out, and the others go on{without}"
            )
        )

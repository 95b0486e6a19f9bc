"""The rows of a comparison: which there are, and what each is drawn and measured after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cictl.config import METHODS, STAGES
from cictl.errors import CictlError, UsageError
from cictl.events import Observer, Warned, ignore
from cictl.records import Checkpoint, latest_checkpoint, read_snapshots, step_folder
from cictl.workflow import evaluate
from cictl.workflow.concept import Source
from cictl.workflow.shared_base import SharedBase
from cictl.workflow.stage import TITLES
from cictl.workspace import Workspace

ROWS: tuple[Source, ...] = ("base", *METHODS, *STAGES)
_NAMES: Mapping[Source, str] = {
    "base": "pre-trained model", "invert": "Contrastive Inversion, stage 1", "finetune": "Contrastive Inversion, both stages",
}  # fmt: skip


def choose_rows(methods: Sequence[str]) -> list[Source]:
    """The rows of these names, in the table's order.

    Raises:
        UsageError: there is no such method.
    """
    for name in methods:
        if name not in ROWS:
            raise UsageError(
                f"there is no method {name!r}",
                f"--methods takes some of these, with commas between them: {', '.join(ROWS)}",
                slug="method-unknown",
            )
    return [row for row in ROWS if not methods or row in methods]


def title_of(row: Source) -> str:
    """What the table calls a row."""
    return _NAMES.get(row) or TITLES[row]  # type: ignore[index]


def draw_and_measure(
    workspace: Workspace,
    rows: Sequence[Source],
    observe: Observer,
    *,
    out: Path,
    overrides: Mapping[str, Any] | None = None,
    last_alone: bool = False,
    shared: SharedBase | None = None,
    on_blank: Callable[[Source, CictlError], None] | None = None,
) -> dict[Source, list[evaluate.EvaluateOutcome]]:
    """Draw and measure what each method ended with, and then what it has kept along the way, the earliest first.

    Args:
        out: of each row there is a folder in it, with what it ended with, and in that one of each of the others.
        overrides: of ci.yaml.
        last_alone: leave out what was kept along the way.
        shared: the base model that drew before.
        on_blank: is told of a row that ended with blanked pictures alone, which is left out then; without it that is an error.

    Raises:
        CictlError: as :func:`cictl.workflow.evaluate.run`.
    """
    blank: set[Source | None] = set()

    def leave_out(one: evaluate.Wanted, error: CictlError) -> None:
        assert on_blank is not None and one.source is not None
        if one.step is None:
            blank.add(one.source)
            on_blank(one.source, error)
        elif one.source not in blank:
            observe(Warned(f"{title_of(one.source)} after {one.step} steps is left out: {error.message}"))

    wanted = [one for row in rows for one in _wanted(workspace, row, observe, out / row, last_alone=last_alone)]
    found = evaluate.run_all(
        workspace, wanted, observe, overrides=overrides, shared=shared, on_blank=leave_out if on_blank else None
    )
    return {row: [one for one in found if one.measured.stage == row] for row in rows if row not in blank}


def kept_along_the_way(workspace: Workspace, row: Source, observe: Observer = ignore, *, verify: bool = True) -> list[Checkpoint]:
    """The whole results that a method has kept along its training, the earliest first, but not of the step that it ended with.

    Args:
        observe: is warned of those that are not whole.
        verify: compare the sha256 of each; otherwise only look whether it is there.
    """
    if row == "base":
        return []
    folder = workspace.stage_folder(row)
    last, _ = latest_checkpoint(folder, verify=False)
    whole, damaged = read_snapshots(folder, verify=verify)
    for line in damaged:
        observe(Warned(line))
    return [one for one in whole if last is None or one.step != last.step]


def _wanted(workspace: Workspace, row: Source, observe: Observer, out: Path, *, last_alone: bool) -> list[evaluate.Wanted]:
    along_the_way = [] if last_alone else kept_along_the_way(workspace, row, observe)
    return [
        evaluate.Wanted(row, out=out, title=f"drawing: {title_of(row)}"),
        *(
            evaluate.Wanted(row, one.step, one, folder_of(out, one.step), f"drawing: {title_of(row)} after {one.step} steps")
            for one in along_the_way
        ),
    ]


def folder_of(out: Path, step: int | None) -> Path:
    """Where in ``out`` pictures and figures are, of a snapshot or of what the training ended with."""
    return out / step_folder(step) if step else out

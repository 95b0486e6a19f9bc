"""`cictl demo`: the whole path on the embedded model, with five pictures of a thing that it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cictl.data.photographs import list_files
from cictl.data.png import Row, opened, sheet, write_png
from cictl.errors import StateError
from cictl.files import absolute, is_there
from cictl.models.locate import locate_base
from cictl.toybox.concepts import demo_concept
from cictl.toybox.tasks import tasks
from cictl.toybox.world.truth import NONE
from cictl.workflow import init
from cictl.workspace import Workspace

MODEL = "toybox"
COUNT = 4
_TASKS = {task.name: task for task in tasks(demo_concept())}
_SHOWN = [_TASKS[name] for name in ("plain", "snow", "sketch", "first shape")]
PROMPTS = tuple(task.prompt for task in _SHOWN)


@dataclass(frozen=True)
class Judged:
    """What the toybox's judge reads in the pictures of a prompt.

    Attributes:
        asked: how many pictures have what the prompt asks for, by value ("cube").
        kept: how many have what the photographs share and the prompt does not change.
        count: of pictures.
    """

    prompt: str
    asked: dict[str, int]
    kept: dict[str, int]
    count: int


@dataclass(frozen=True)
class DemoOutcome:
    """The workspace of the demo, the sheet that shows what came out, and the judge's reading of it.

    Attributes:
        reliability: the shares of pictures of known truth, never trained on, that the judge reads right, least first.
    """

    workspace: str
    sheet: str
    judged: list[Judged]
    reliability: dict[str, float]


def prepare(folder: Path) -> Workspace:
    """A workspace on the toybox with five pictures of a dotted teapot; an earlier demo is gone on with.

    Raises:
        StateError: the folder is a workspace of something else.
    """
    workspace = Workspace(absolute(folder))
    if is_there(workspace.config_file):
        if not list(workspace.images.glob("teapot-*.png")):
            raise StateError(
                f"{folder} is a workspace already, but not the demo's",
                "give another folder: cictl demo NEW-FOLDER",
                slug="demo-folder-taken",
            )
        return workspace
    workspace = init.run(folder, model=MODEL, name="my-teapot")
    for number, pixels in enumerate(demo_concept().photographs(), 1):
        write_png(workspace.images / f"teapot-{number}.png", pixels)
    return workspace


def write_sheet(workspace: Workspace, paths: list[Path]) -> DemoOutcome:
    """The five photographs above a row of pictures for each of :data:`PROMPTS`, and what the judge reads in those."""
    from cictl.toybox.judge import load_judge, read, reliability

    toybox = locate_base(MODEL).folder
    judge = load_judge(toybox)
    rows = [Row("the photographs", list_files(workspace.images))]
    judged = []
    for index, task in enumerate(_SHOWN):
        pictures = [opened(path) for path in paths[index * COUNT : (index + 1) * COUNT]]
        rows.append(Row(task.prompt, pictures))
        readings = read(judge, np.stack([np.asarray(picture) for picture in pictures]))

        def right(wanted: Mapping[str, str], readings: list[dict[str, str]] = readings) -> dict[str, int]:
            return {
                f"{value}'s parts" if name == "parts" else value: sum(reading[name] == value for reading in readings)
                for name, value in wanted.items()
                if value != NONE
            }

        judged.append(Judged(task.prompt, right(task.asked), right(task.kept), len(pictures)))
    path = workspace.outputs / "demo.png"
    write_png(path, sheet(rows, tile=160))
    named = {name for task in _SHOWN for name in (*task.asked, *task.kept)}
    shares = {name: share for name, share in reliability(toybox).items() if name in named}
    return DemoOutcome(str(workspace.root), workspace.shown(path), judged, shares)

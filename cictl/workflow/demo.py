"""`cictl demo`: the whole path on the embedded model, with five pictures of a thing that it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cictl.data.photographs import list_files
from cictl.data.png import Row, sheet, write_png
from cictl.errors import StateError
from cictl.workflow import init
from cictl.workspace import Workspace

MODEL = "toybox"
PROMPTS = ("a photo of S*", "S* in the snow", "a sketch of S*", "a cube-shaped S*")
COUNT = 4


@dataclass(frozen=True)
class DemoOutcome:
    """The workspace of the demo, and the sheet that shows what came out."""

    workspace: str
    sheet: str


def prepare(folder: Path) -> Workspace:
    """A workspace on the toybox with five pictures of a dotted teapot; an earlier demo is gone on with.

    Raises:
        StateError: the folder is a workspace of something else.
    """
    workspace = Workspace(folder.absolute())
    if workspace.config_file.exists():
        if not list(workspace.images.glob("teapot-*.png")):
            raise StateError(f"{folder} is a workspace already, but not the demo's", "give another folder: cictl demo NEW-FOLDER")
        return workspace
    from cictl.toybox.concepts import demo_concept, render_photographs

    workspace = init.run(folder, model=MODEL, name="my-teapot")
    for number, pixels in enumerate(render_photographs(demo_concept(), seed=0), 1):
        write_png(workspace.images / f"teapot-{number}.png", pixels)
    return workspace


def write_sheet(workspace: Workspace, paths: list[Path]) -> DemoOutcome:
    """The five photographs above a row of pictures for each of :data:`PROMPTS`."""
    rows = [Row("the photographs", [Image.open(path) for path in list_files(workspace.images)])]
    for index, prompt in enumerate(PROMPTS):
        rows.append(Row(prompt, [Image.open(path) for path in paths[index * COUNT : (index + 1) * COUNT]]))
    path = workspace.outputs / "demo.png"
    write_png(path, sheet(rows, tile=160))
    return DemoOutcome(str(workspace.root), workspace.shown(path))

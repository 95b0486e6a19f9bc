"""`cictl preview-aux`: what each auxiliary token holds (Fig. 5), drawn by the untouched base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cictl.config import Config
from cictl.data.photographs import Photograph, find_photographs, open_upright
from cictl.data.png import Row, sheet, write_png
from cictl.errors import StateError
from cictl.events import Observer
from cictl.models.locate import Located
from cictl.workflow.concept import Concept, find_concept
from cictl.workflow.drawing import auxiliary_texts
from cictl.workflow.pictures import draw_pictures, find_base_of
from cictl.workflow.plans import Plan, listed, make_plans, sheet_name
from cictl.workflow.shared_base import SharedBase
from cictl.workflow.stage import configure
from cictl.workspace import Workspace


@dataclass(frozen=True)
class PreviewOutcome:
    """The sheet, and the pictures that it is made of."""

    sheet: str
    pictures: list[dict[str, Any]]


@dataclass(frozen=True)
class Drawn:
    """Pictures of the tokens alone, as many of each.

    Attributes:
        photographs: by their names.
        shared: pictures of S*.
        own: for each photograph, those of its A_i*.
        plans: of all pictures, S* first.
    """

    photographs: Sequence[Photograph]
    shared: Sequence[Path]
    own: Sequence[Sequence[Path]]
    plans: Sequence[Plan]


def run(workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None) -> PreviewOutcome:
    """Draw ``generate.count`` pictures of "A photo of A_i*" for each photograph, and of S* alone, on one sheet.

    Raises:
        StateError: as :func:`draw`.
    """
    drawn = draw(workspace, observe, overrides=overrides)
    images = [open_upright(photograph.path) for photograph in drawn.photographs]
    rows = [Row("the photographs", images, [photograph.name for photograph in drawn.photographs])]
    for number in range(len(drawn.shared)):
        below = [paths[number] for paths in drawn.own]
        rows.append(Row("" if number else "A photo of A*: what each photograph has of its own", below))
    rows.append(Row("A photo of S*: what they share", drawn.shared))
    paths = [*drawn.shared, *(path for own in drawn.own for path in own)]
    path = sheet_of(workspace, paths)
    write_png(path, sheet(rows))
    return PreviewOutcome(workspace.shown(path), listed(workspace, paths, drawn.plans))


def sheet_of(workspace: Workspace, paths: Sequence[Path]) -> Path:
    """Where the sheet of these pictures lies."""
    return workspace.outputs / sheet_name("preview-aux", paths)


def draw(
    workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None, shared: SharedBase | None = None
) -> Drawn:
    """The pictures of the tokens, of which those that are there are kept.

    Args:
        shared: the base model that drew before.

    Raises:
        StateError: stage 1 has not been run, was run with n = 0, or with other photographs.
    """
    job = prepare(workspace, observe, overrides=overrides)
    base = find_base_of(workspace, job.config, job.concept, observe)
    plans, count = job.plans(base), job.config.generate.count
    paths = draw_pictures(
        job.config, base, job.concept, plans, job.folder, observe, again="cictl preview-aux", shared=shared
    ).paths
    groups = [paths[start : start + count] for start in range(0, len(paths), count)]
    return Drawn(job.photographs, groups[0], groups[1:], plans)


@dataclass(frozen=True)
class Job:
    """What is to be drawn, before the base model is asked for.

    Attributes:
        photographs: by their names.
        prompts: what is written -> what the tokenizer reads; S* first, then the A_i* of the photographs in their order.
        folder: of the pictures.
    """

    config: Config
    concept: Concept
    photographs: Sequence[Photograph]
    prompts: Mapping[str, str]
    folder: Path

    def plans(self, base: Located) -> list[Plan]:
        """Of all pictures, drawn by ``base``."""
        return make_plans(self.config, base, self.concept, self.prompts.items(), self.config.generate.count)


def prepare(workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None) -> Job:
    """Look at what there is to draw.

    Raises:
        StateError: as :func:`draw`.
    """
    config = configure(workspace, {**(overrides or {}), "generate.avoid": 0.0})  # the A_i* are what is to be seen
    concept = find_concept(workspace, "invert", observe)
    tokens = concept.layout()
    if not tokens.auxiliary_vectors:
        raise StateError(
            "stage 1 was run with invert.auxiliary_vectors 0, so there are no auxiliary tokens to look at",
            "cictl invert --restart --set invert.auxiliary_vectors=4",
            slug="auxiliary-tokens-none",
        )
    photographs = {photograph.key: photograph for photograph in find_photographs(workspace.images)}
    if gone := [key for key in tokens.keys if key not in photographs]:
        raise StateError(
            f"of the photographs that stage 1 was trained with, {len(gone)} {'is' if len(gone) == 1 else 'are'} no longer in "
            f"{workspace.shown(workspace.images)}",
            "put them back (cictl status names them), or: cictl invert --restart",
            slug="photographs-gone",
        )
    prompts = {"A photo of S*": f"A photo of {' '.join(tokens.concept_names)}"}
    keys = sorted(tokens.keys, key=lambda key: photographs[key].name)
    texts = auxiliary_texts(concept)
    prompts |= {f"A photo of A* ({photographs[key].name})": texts[key] for key in keys}
    return Job(config, concept, [photographs[key] for key in keys], prompts, workspace.outputs / "preview-aux")

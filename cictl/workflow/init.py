"""`cictl init`: a new workspace. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cictl.config import commented_yaml, initial_config
from cictl.config.templates import templates_folder
from cictl.data.copying import copy_into
from cictl.errors import ResourceError, StateError, UsageError
from cictl.files import absolute, from_home, how_to_write, is_folder, is_there, quoted, write_atomic
from cictl.workspace import Workspace, check_name, slug

_PARTS = ("checkpoints", "outputs", ".gitignore", "README.md")  # beside images/, which may be there, and ci.yaml


def run(
    folder: Path, *, model: str | None = None, images: Sequence[Path] = (), kind: str = "object", name: str | None = None
) -> Workspace:
    """Make a workspace, and copy ``images`` into it.

    Args:
        model: base model, as model.id of ci.yaml; None is Stable Diffusion 1.5.
        kind: object, style or pose: it chooses the prompts.
        name: of the concept; None is taken from the folder's.

    Raises:
        StateError: the folder is a workspace already, or holds something else.
        UsageError: the name cannot be used, or a picture is not there.
        ResourceError: the disk is full or cannot be written; nothing is left but photographs.
    """
    workspace = Workspace(absolute(folder))
    if is_there(workspace.config_file):
        raise StateError(
            f"{workspace.shown(workspace.root)} is a workspace already; it was not touched",
            f"cictl status -C {quoted(workspace.shown(workspace.root))}",
            slug="workspace-exists",
        )
    if is_there(workspace.root) and not workspace.root.is_dir():
        raise UsageError(f"{folder} is a file", "name a new folder, such as my-teapot", slug="init-folder-is-file")
    if is_folder(workspace.root) and any((workspace.root / part).exists() for part in _PARTS):
        raise StateError(
            f"{folder} holds other files that a workspace would overwrite",
            "name a new folder, such as my-teapot",
            slug="init-folder-taken",
        )
    chosen = check_name(name) if name is not None else check_name(slug(workspace.root.name, 40))
    if model and model != "toybox" and is_there(from_home(model)):
        model = str(from_home(model).resolve())  # so that it is found from whatever folder
    config = initial_config(name=chosen, kind=kind, model=model)
    texts = templates_folder() / "workspace"
    ignored, readme = (texts / "gitignore").read_bytes(), (texts / "README.md").read_text("utf-8").replace("{name}", chosen)
    try:
        copy_into(images, workspace.images)  # first, since it makes nothing when a picture is not there
        for part in (workspace.images, workspace.checkpoints, workspace.outputs):
            part.mkdir(parents=True, exist_ok=True)
        write_atomic(workspace.root / ".gitignore", ignored)
        write_atomic(workspace.root / "README.md", readme.encode())
        write_atomic(workspace.config_file, commented_yaml(config).encode())  # last: it makes it a workspace
    except OSError as error:
        _unmake(workspace)
        raise ResourceError(
            f"{folder} cannot be made: {error.strerror}", how_to_write(folder, error), slug="init-not-written"
        ) from None
    return workspace


def _unmake(workspace: Workspace) -> None:
    """Delete what a workspace has beside photographs, none of which was there before: the same command would stop at it."""
    for part in _PARTS:
        shutil.rmtree(workspace.root / part, ignore_errors=True)
        with suppress(OSError):
            (workspace.root / part).unlink()

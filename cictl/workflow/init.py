"""`cictl init`: a new workspace. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from cictl.config import commented_yaml, initial_config
from cictl.config.templates import templates_folder
from cictl.data.copying import copy_into
from cictl.errors import StateError, UsageError
from cictl.files import from_home, write_atomic
from cictl.workspace import CONFIG_NAME, Workspace, check_name, slug


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
    """
    workspace = Workspace(folder.absolute())
    if workspace.config_file.exists():
        raise StateError(
            f"{workspace.shown(workspace.root)} is a workspace already; it was not touched",
            f"cictl status -C {workspace.shown(workspace.root)}",
            slug="workspace-exists",
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", "name a new folder, such as my-teapot", slug="init-folder-is-file")
    if folder.is_dir() and any((folder / part).exists() for part in ("checkpoints", "outputs", ".gitignore", "README.md")):
        raise StateError(
            f"{folder} holds other files that a workspace would overwrite",
            "name a new folder, such as my-teapot",
            slug="init-folder-taken",
        )
    chosen = check_name(name) if name is not None else check_name(slug(workspace.root.name, 40))
    if model and model != "toybox" and from_home(model).exists():
        model = str(from_home(model).resolve())  # so that it is found from whatever folder
    config = initial_config(name=chosen, kind=kind, model=model)
    try:
        copy_into(images, workspace.images)  # first, since it makes nothing when a picture is not there
        for part in (workspace.images, workspace.checkpoints, workspace.outputs):
            part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}",
            "name a new folder, such as my-teapot",
            slug="init-not-written",
        ) from None
    shutil.copyfile(templates_folder() / "workspace" / "gitignore", workspace.root / ".gitignore")
    readme = (templates_folder() / "workspace" / "README.md").read_text("utf-8")
    write_atomic(workspace.root / "README.md", readme.replace("{name}", chosen).encode())
    write_atomic(workspace.root / CONFIG_NAME, commented_yaml(config).encode())  # last: it makes it a workspace
    return workspace

"""Where the files that `cictl init` copies lie, and the overlays of kinds and presets among them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from cictl.config.yaml_file import parse_yaml


@cache
def templates_folder() -> Path:
    """The templates: inside the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "templates"
    return installed if installed.is_dir() else package.parent / "templates"


def preset_for(model_id: str) -> dict[str, Any]:
    """Settings that were measured for this model, by its name; empty for all but the toybox."""
    return _overlay(f"presets/{model_id}") if model_id == "toybox" else {}


def kind_overlay(kind: str, model_id: str) -> dict[str, Any]:
    """The prompts for a kind of concept (object, style or pose), in the language of a model if it has one of its own."""
    own = f"kinds/toybox/{kind}"
    has_own = model_id == "toybox" and (templates_folder() / f"{own}.yaml").exists()
    return _overlay(own if has_own else f"kinds/{kind}")


def prompt_sets() -> list[str]:
    """The names of the prompt sets that ship."""
    return sorted(path.stem for path in (templates_folder() / "prompts").glob("*.txt"))


def prompt_set_file(name: str, model_id: str) -> Path | None:
    """Where a prompt set lies, in the language of a model if it has one of its own; None if there is none of this name."""
    if name not in prompt_sets():
        return None
    folder = templates_folder() / "prompts"
    own = folder / "toybox" / f"{name}.txt"
    return own if model_id == "toybox" and own.exists() else folder / f"{name}.txt"


def _overlay(name: str) -> dict[str, Any]:
    document = parse_yaml((templates_folder() / f"{name}.yaml").read_text("utf-8"))
    if document.problems:
        raise RuntimeError(f"templates/{name}.yaml: {document.problems[0].message}")
    return document.values

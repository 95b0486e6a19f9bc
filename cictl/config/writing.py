"""ci.yaml as `cictl init` writes it: every field, with what it does and the paper's value."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

from pydantic import BaseModel

from cictl.config.loading import merge
from cictl.config.schema import Config
from cictl.config.stages import METHODS, group_of
from cictl.config.templates import kind_overlay, preset_for

_WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z][\w./+-]*")
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off"}


def initial_config(*, name: str, kind: str = "object", model: str | None = None) -> Config:
    """What a new workspace starts with: defaults, under the kind's prompts, under the model's preset."""
    base = {"id": model} if model else {}
    values = merge(kind_overlay(kind, model or ""), preset_for(model or ""))
    values = merge(values, {"concept": {"name": name, "kind": kind}, "model": base})
    return Config.model_validate(values)


def commented_yaml(config: Config) -> str:
    """``config`` as text that reads back as the same config.

    The groups of the other methods are left out where they are what they would be without being written.
    """
    unwritten = Config.model_validate(preset_for(config.model.id))
    lines = [
        f"# The settings of the concept {config.concept.name}. Any of them can be changed for one command with",
        "# --set, as in `cictl invert --set invert.steps=60`; what a training is given so, it keeps until",
        '# --restart. "Paper" is arXiv 2508.07755.',
        "",
        *_field_lines(Config, config, "seed", indent=""),
    ]
    for group in Config.model_fields:
        values = getattr(config, group)
        left_out = group in map(group_of, METHODS) and values == getattr(unwritten, group)
        if isinstance(values, BaseModel) and not left_out:
            lines += ["", f"# {type(values).__doc__}", f"{group}:"]
            for key in type(values).model_fields:
                lines += _field_lines(type(values), values, key, indent="  ")
    return "\n".join(lines) + "\n"


def _field_lines(schema: type[BaseModel], values: BaseModel, key: str, indent: str) -> list[str]:
    field = schema.model_fields[key]
    extra = field.json_schema_extra
    paper = extra["paper"] if isinstance(extra, dict) else ""
    source = {"ours": "", "not stated in the paper": " Not stated in the paper."}.get(str(paper), f" Paper: {paper}.")
    comment = textwrap.wrap(f"{field.description}{source}", _WIDTH - len(indent) - 2)
    return [*(f"{indent}# {line}" for line in comment), f"{indent}{key}: {_scalar(getattr(values, key))}"]


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in value)}]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)

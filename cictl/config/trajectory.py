"""Which settings a training reads, and which of them change its course."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from cictl.config.schema import Config
from cictl.config.stages import BEFORE, METHODS, STAGES, Stage, group_of

_READERS: Mapping[str, tuple[Stage, ...]] = {
    "concept.name": (*STAGES, "textual-inversion", "custom-diffusion"),  # which have a new token of this name
    "concept.kind": ("textual-inversion",),  # its prompts; ours are chosen by it once, by init
    "concept.vectors": STAGES,
    "concept.start": (*STAGES, "textual-inversion"),
    "model.clip": (*STAGES, "disenbooth"),
    "model.clip_revision": (*STAGES, "disenbooth"),
    "evaluate.noun": METHODS,
}
"""Who reads a key that not every training reads; each reads its own group and no other's."""


def is_read_by(stage: Stage, key: str) -> bool:
    """Whether training ``stage`` looks at a dotted key."""
    group = key.partition(".")[0]
    if group in map(group_of, BEFORE):
        return group == group_of(stage)
    return stage in _READERS.get(key, BEFORE)


def trajectory(config: Config, stage: Stage) -> dict[str, Any]:
    """The fields, by dotted key, that change the course of ``stage``: its part of the fingerprint.

    Steps, intervals, previews, the device and generation are not among them: a larger ``steps`` goes on
    with a finished run. Those of the stages before it are.
    """
    fields: dict[str, Any] = {"seed": config.seed}
    for group in ("concept", "model", "data", *map(group_of, (*BEFORE[stage], stage))):
        values: BaseModel = getattr(config, group)
        for key, field in type(values).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra["shapes"]:
                fields[f"{group}.{key}"] = getattr(values, key)
    fields["evaluate.noun"] = config.evaluate.noun
    return {key: value for key, value in fields.items() if any(is_read_by(one, key) for one in (*BEFORE[stage], stage))}

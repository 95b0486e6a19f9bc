"""Which training an export is of, as its files say it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cictl.errors import ModelAccessError
from cictl.models.headers import read_header


def described(facts: Mapping[str, Any]) -> str:
    """The stage and its steps, such as ``finetune after 60 steps``."""
    return f"{facts['stage']} after {facts['step']} steps"


def origin_of(path: Path) -> str:
    """What :func:`described` says of a safetensors file of an export; nothing of any other file."""
    try:
        return described(json.loads(read_header(path).metadata["cictl"]))
    except (ModelAccessError, ValueError, KeyError, TypeError, RecursionError):
        return ""

"""Which training an export is of, as its files say it. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LARGEST_HEADER = 100_000_000  # the format's own limit


def described(facts: Mapping[str, Any]) -> str:
    """The stage and its steps, such as ``finetune after 60 steps``."""
    return f"{facts['stage']} after {facts['step']} steps"


def origin_of(path: Path) -> str:
    """What :func:`described` says of a safetensors file of an export; nothing of any other file."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _LARGEST_HEADER else {}
        return described(json.loads(header["__metadata__"]["cictl"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ""

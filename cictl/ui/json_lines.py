"""Progress as JSON, one object a line, for programs."""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

from cictl.events import Event, SamplingStep, StepCompleted
from cictl.files import as_typed


def json_line(values: dict[str, Any]) -> str:
    """``values`` as one line of strict JSON: NaN and infinity, which JSON lacks, become null."""
    return json.dumps(_strict(values), allow_nan=False)


class JsonLines:
    """An observer that writes every event but the single steps to ``stream``, each at once, with paths as results have them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Writes ``event``."""
        if not isinstance(event, StepCompleted | SamplingStep):
            print(json_line(event.as_json(as_typed)), file=self._stream, flush=True)


def _strict(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {str(key): _strict(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_strict(inner) for inner in value]
        case str() | int() | float() | None:
            return value
        case _:
            return str(value)

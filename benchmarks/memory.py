"""The most memory that a process has had."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def peak_resident() -> int:
    """Bytes of this process alone. Linux hands getrusage's figure down from the process that started it, however large."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

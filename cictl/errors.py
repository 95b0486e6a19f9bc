"""What can go wrong, each kind with its exit code. Imports nothing of ours.

Every message says what is wrong and where; every hint is the next thing to type or do; every slug names the cause, and
stays the same when the words change. docs/errors.md shows all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar
from unicodedata import category

# Of torch's allocators for GPUs, for Apple's, for the CPU on Linux and on Windows, and of CUDA's libraries.
_OUT_OF_MEMORY = ("out of memory", "invalid buffer size", "can't allocate memory", "not enough memory", "alloc_failed")


class CictlError(Exception):
    """A failure that the user can understand and act on; shown without a traceback.

    Args:
        message: what is wrong, and where, on one line; a list is of several. Whatever else would break a line, or steer a
            terminal, is escaped, since names of files come from others.
        hint: the next command to type, or the next thing to do; a line for each way on.
        slug: names the cause for programs (``--json``) and for docs/errors.md; each stands in one place of the source.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str | list[str], hint: str, *, slug: str) -> None:
        self.message = "\n".join(map(_on_one_line, [message] if isinstance(message, str) else message))
        super().__init__(self.message)
        self.hint = hint
        self.slug = slug

    def __reduce__(self) -> tuple[Any, ...]:
        """How one process tells another: Python's own way would call ``__init__`` with the message alone."""
        return type(self).__new__, (type(self), self.message), self.__dict__


def _on_one_line(text: str) -> str:
    """``text`` as it stands, but for what is neither to be seen nor a space."""
    return "".join(one if one.isprintable() or category(one) == "Zs" else ascii(one)[1:-1] for one in text)


def lacking(weights: Collection[str]) -> str:
    """How a message says which weights are missing: how many, and the first of them."""
    return f"lacks {len(weights)} weight{'s' if len(weights) > 1 else ''}, such as {min(weights)}"


def means_out_of_memory(error: Exception) -> bool:
    """Whether torch or Python says with ``error`` that memory ran out."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or any(saying in said for saying in _OUT_OF_MEMORY)


class UsageError(CictlError):
    """A wrong argument, a wrong ci.yaml, or photographs that cannot be used."""

    exit_code = 2
    kind = "usage"


class StateError(CictlError):
    """The workspace is not in the state that the command needs (missing, changed, or too early)."""

    exit_code = 3
    kind = "state"


class ModelAccessError(CictlError):
    """The base model cannot be reached, read, or used."""

    exit_code = 4
    kind = "model"


class ResourceError(CictlError):
    """The disk or the memory is full."""

    exit_code = 5
    kind = "resource"


class BusyError(CictlError):
    """Another process is writing to this workspace."""

    exit_code = 75
    kind = "busy"


class ProcessLost(CictlError):
    """Another of the processes that work together has ended."""

    kind = "process"


class Interrupted(CictlError):
    """A signal asked the work to stop; what was reached is saved.

    Args:
        signal_number: 1 (SIGHUP), 2 (SIGINT) or 15 (SIGTERM); the exit code is 128 more.
    """

    kind = "interrupted"

    def __init__(self, signal_number: int, message: str | list[str], hint: str) -> None:
        super().__init__(message, hint, slug="interrupted")
        self.signal_number = signal_number

    @property
    def stopped_with(self) -> int:
        """The exit code: 129 for SIGHUP, 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal_number

"""A device whose memory is not enough: said in words, for training and generation alike. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cictl.errors import ResourceError


@contextmanager
def out_of_memory_explained(hint: str) -> Iterator[None]:
    """Turn what torch and Python raise when memory runs out into a ResourceError with ``hint``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        raise ResourceError("the memory of the device is not enough", hint, slug="memory-full") from None

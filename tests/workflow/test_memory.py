"""Running out of memory."""

from __future__ import annotations

import pytest

from cictl.errors import ResourceError
from cictl.workflow.memory import out_of_memory_explained


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")])
def test_too_little_memory_is_exit_5_with_what_to_do(error):
    with pytest.raises(ResourceError) as caught, out_of_memory_explained("do this"):
        raise error
    assert (caught.value.exit_code, caught.value.hint) == (5, "do this")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained("do this"):
        raise RuntimeError("shapes do not fit")

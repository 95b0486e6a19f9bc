"""Running out of memory."""

from __future__ import annotations

import pytest
import torch

from cictl.errors import ResourceError
from cictl.workflow.memory import out_of_memory_explained


def cpu_allocator_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Invalid buffer size: 11.25 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: not enough memory: you tried to allocate"),
        cpu_allocator_error(),
    ],
)
def test_too_little_memory_is_exit_5_with_what_to_do(error):
    with pytest.raises(ResourceError) as caught, out_of_memory_explained("do this"):
        raise error
    assert (caught.value.exit_code, caught.value.hint) == (5, "do this")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained("do this"):
        raise RuntimeError("shapes do not fit")

"""How fast a device is: what it does in a second of large products, and what it needs for the smallest operation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SIDES = {"cpu": 1024, "cuda": 4096, "mps": 2048}
_SECONDS = 0.3
_SMALL_CALLS = 500


@dataclass(frozen=True)
class Speed:
    """Measured in this process.

    Attributes:
        flops: floating-point operations a second, in a product of square matrices.
        call: seconds that one small operation takes.
    """

    flops: float
    call: float


def measure_speed(device: torch.device, dtype: torch.dtype) -> Speed:
    """Measure for about a second."""
    side = _SIDES.get(device.type, 1024)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    small = torch.randn(8, device=device, dtype=dtype)

    def seconds(work: Callable[[], None], times: int) -> float:
        _wait(device)
        began = time.perf_counter()
        for _ in range(times):
            work()
        _wait(device)
        return time.perf_counter() - began

    def product() -> None:
        torch.mm(matrix, matrix)

    def addition() -> None:
        torch.add(small, small)

    seconds(product, 2)  # warm
    times = max(1, int(_SECONDS / max(seconds(product, 1), 1e-6)))
    return Speed(2 * side**3 * times / seconds(product, times), seconds(addition, _SMALL_CALLS) / _SMALL_CALLS)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

"""What stands in the process of a program that is timed: it waits here between blocks of work, and tells what each took.

A block is a number of training steps, or a batch of pictures. The program calls :meth:`Gate.arrive` at the end of each
through a hook, and knows nothing else of being timed. On a CPU time is that of the process, on one thread, which other
programs change little; on a GPU it is the clock's, read when the device has done all of its work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.memory import peak_resident

_SIDES = {"cpu": 1024, "cuda": 8192}
_PRODUCT_SECONDS = 0.5
_LAUNCHES = ("LaunchKernel", "GraphLaunch")  # cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch


class Ended(BaseException):
    """The program is to end: enough was seen. No Exception, so that the program does not take it for a fault of its own."""


class Gate:
    """The meeting point of a timed program with the benchmark.

    Args:
        connection: to the benchmark, which sends a word and gets a dictionary of figures:
            ``time`` (a block, timed), ``launches`` (a block, its launches of GPU kernels counted), ``count`` (a block, its
            operations counted), ``memory`` (the peak since the last asking), ``product`` (floating-point operations a second in
            a matrix product), ``end``.
        device: cpu or cuda.
        dtype: in which the product is done.
        started: when the process was asked for, by ``time.monotonic``.

    Attributes:
        facts: what the program found out beside its work before its first block ended, by name; it is part of the result.
    """

    def __init__(self, connection: Connection, device: str, dtype: str, started: float) -> None:
        self.connection = connection
        self.device = device
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.clock: Callable[[], float] = time.process_time if device == "cpu" else time.perf_counter
        self.facts: dict[str, Any] = {}
        self._finish: Callable[[], dict[str, Any]] = lambda: {"first_seconds": self._since_start(started), "facts": self.facts}
        self._loading = 0.0

    def arrive(self) -> None:
        """A block is done: tell what was measured of it, and wait until there is something to do."""
        self._send(self._finish())
        while True:
            match self._receive():
                case "time":
                    self._finish = self._timed()
                    return
                case "launches":
                    self._finish = self._launched()
                    return
                case "count":
                    self._finish = self._counted()
                    return
                case "memory":
                    self._send(_peak_memory(self.device))
                case "product":
                    self._send({"product_flops": self._product()})
                case _:
                    raise Ended

    def note(self, message: str) -> None:
        """Remember something that the program has said of itself."""
        self.facts.setdefault("notes", []).append(message)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """What happens here is the loader's."""
        began = self.clock()
        try:
            yield
        finally:
            self._loading += self.clock() - began

    def _send(self, figures: Mapping[str, Any]) -> None:
        try:
            self.connection.send(figures)
        except OSError:  # the benchmark is gone
            raise Ended from None

    def _receive(self) -> str:
        try:
            word: str = self.connection.recv()
        except (EOFError, OSError):
            raise Ended from None
        return word

    def _timed(self) -> Callable[[], dict[str, Any]]:
        self._loading = 0.0
        began = self.clock()

        def finish() -> dict[str, Any]:
            self._wait()
            return {"seconds": self.clock() - began, "loader_seconds": self._loading}

        return finish

    def _launched(self) -> Callable[[], dict[str, Any]]:
        opened = ExitStack()
        profile = opened.enter_context(_profiler())

        def finish() -> dict[str, Any]:
            self._wait()
            opened.close()
            rows = profile.key_averages()
            return {"launches": sum(row.count for row in rows if any(name in row.key for name in _LAUNCHES))}

        return finish

    def _counted(self) -> Callable[[], dict[str, Any]]:
        opened = ExitStack()
        opened.enter_context(_nothing_replayed())  # no operation of a replay would be seen
        calls = opened.enter_context(_Calls())
        counter = opened.enter_context(flop_counter())

        def finish() -> dict[str, Any]:
            self._wait()
            opened.close()
            return {"flops": counter.get_total_flops(), "calls": calls.count}

        return finish

    def _product(self) -> float:
        side = _SIDES[self.device]
        matrix = torch.randn(side, side, device=self.device, dtype=self.dtype)
        best = 0.0
        for _ in range(3):
            times, began = 0, self.clock()
            while self.clock() - began < _PRODUCT_SECONDS / 3:
                torch.mm(matrix, matrix)
                self._wait()
                times += 1
            best = max(best, 2 * side**3 * times / (self.clock() - began))
        return best

    def _since_start(self, started: float) -> float:
        self._wait()
        return time.process_time() if self.device == "cpu" else time.monotonic() - started

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class _Calls(TorchDispatchMode):
    """Counts the library's operations."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += 1
        return function(*arguments, **(options or {}))


@contextmanager
def _nothing_replayed() -> Iterator[None]:
    """What cictl has recorded runs as it is meanwhile."""
    from cictl.engine.recorded import Recorded

    call = Recorded.__call__

    def run(self: Recorded, *inputs: torch.Tensor, **fixed: Any) -> dict[str, torch.Tensor]:
        return self.function(*inputs, **fixed)

    Recorded.__call__ = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recorded.__call__ = call  # type: ignore[method-assign]


def _profiler() -> Any:
    from torch.profiler import ProfilerActivity, profile

    return profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])


def flop_counter() -> FlopCounterMode:
    """torch's counter, which is told of the attention of the CPU too: it counts as that of a GPU does."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

    def count(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def count_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))

    return FlopCounterMode(display=False, custom_mapping={forward: count, backward: count_backward})


def _peak_memory(device: str) -> dict[str, int]:
    """The most memory in bytes since the last call, from when on it is counted anew; on macOS since the process began.

    On a GPU that which torch has allocated, and all that graphs keep to themselves, which it does not count between replays.
    """
    if device == "cuda":
        kept = sum(
            part["total_size"] - part["active_size"] for part in torch.cuda.memory_snapshot() if any(part["segment_pool_id"])
        )
        peaks = {"peak": torch.cuda.max_memory_allocated() + kept, "peak_reserved": torch.cuda.max_memory_reserved()}
        torch.cuda.reset_peak_memory_stats()
        return peaks
    peak, marks = peak_resident(), Path("/proc/self/clear_refs")
    if marks.exists():
        marks.write_text("5")  # the high-water mark of the resident memory
    return {"peak": peak}

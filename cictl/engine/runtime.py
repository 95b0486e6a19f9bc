"""Where and how the work runs: device, precision, gradients across processes, memory, signals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cictl import stops
from cictl.config.schema import ModelConfig
from cictl.engine.devices import choose_device, overlooked_gpu
from cictl.engine.recorded import Recorded
from cictl.errors import Interrupted
from cictl.events import Memory
from cictl.processes import ALONE, Processes

_ECHO_SECONDS = 2.0  # within which a launcher passes on what the terminal has sent to all processes already
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Runtime:
    """The device and the precision, and what depends on them.

    Attributes:
        device: with a number if there may be several of its kind.
        dtype: of the frozen parts; what is trained is fp32.
        processes: those that train together.
        overlooked: what is to be said about a GPU that is there and not used; nothing if there is none.
        graphs: whether this is a GPU that may record a step as a CUDA graph.
        fused: whether this is a GPU that may have kernels of our own.
    """

    device: torch.device
    dtype: torch.dtype
    processes: Processes = ALONE
    overlooked: str = ""
    graphs: bool = False
    fused: bool = False

    def __post_init__(self) -> None:
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self._peak = 0
        self._recorded: list[Recorded] = []

    @classmethod
    def create(cls, device: str = "auto", dtype: str = "auto", processes: Processes = ALONE) -> Runtime:
        """Choose the device and the precision. On CUDA the device is the current one from then on.

        Args:
            device: auto, cpu, cuda, cuda:N, mps. Of several processes on one machine each takes a GPU of its own.
            dtype: auto, fp32, bf16, fp16.
            processes: those that work together.

        Raises:
            UsageError: the device is not there, cannot be used, or is not enough for several processes.
        """
        chosen = choose_device(device, processes)
        overlooked = overlooked_gpu() if device == "auto" and chosen.type == "cpu" else ""
        return cls(chosen, _DTYPES.get(dtype) or _best_dtype(chosen), processes, overlooked)

    @classmethod
    def configured(cls, settings: ModelConfig, processes: Processes = ALONE) -> Runtime:
        """As :meth:`create`, and how a GPU works as the group ``model`` of ci.yaml says."""
        runtime = cls.create(settings.device, settings.dtype, processes)
        if runtime.device.type == "cuda":
            runtime.graphs, runtime.fused = settings.cuda_graph, settings.fused
            _repeat_bits(settings.deterministic)
        return runtime

    @property
    def dtype_name(self) -> str:
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    @property
    def skips(self) -> bool:
        """Whether steps whose gradients are no numbers change nothing: so the scaler of fp16 looks for its scale."""
        return self._scaler.is_enabled()

    @property
    def records(self) -> bool:
        """Whether steps of training are recorded: not where one may be skipped, nor where processes add up in between."""
        return self.graphs and not self.skips and self.processes.count == 1

    def recorded(self, function: Callable[..., dict[str, Tensor]]) -> Recorded:
        """``function``, which is a step of training or a part of it, recorded where steps are."""
        self._recorded.append(Recorded(function, record=self.records))
        return self._recorded[-1]

    def release(self) -> None:
        """Let other work have the memory of what is recorded, which is recorded anew afterwards."""
        for recorded in self._recorded:
            recorded.forget()

    def backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradient of every process's ``loss``, scaled if the precision needs it.

        Those of several processes are added one after another, by rank, which is the sum that one process makes of the
        same parts: ((g_0 + g_1) + g_2) + ... A reduction by the backend might add them in another order.
        """
        scaled = self._scaler.scale(loss)
        if self.processes.count == 1:
            scaled.backward()
            return
        totals = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        scaled.backward()
        for parameter, total in zip(parameters, totals, strict=True):
            parameter.grad = self._added(total, parameter.grad)

    def _added(self, total: Tensor | None, own: Tensor | None) -> Tensor | None:
        """``total`` and the gradient of every process, of which ``own`` is this one's; None where there is none."""
        for gradient in [] if own is None else self.processes.gather(own):
            total = gradient if total is None else total + gradient
        return total

    def step(self, optimizer: torch.optim.Optimizer, gradient_clip: float | None = None) -> None:
        """Step by the gradients, and clear them; a recorded step adds to them where they are.

        Args:
            gradient_clip: the largest norm that all gradients may have together. Every process has the same sum of
                gradients, and so the same norm of it.
        """
        if gradient_clip is not None:
            self._scaler.unscale_(optimizer)
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip)
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=not self.records)

    def scaler_state(self) -> dict[str, Any]:
        """The gradient scaler's state, for the manifest; empty unless the precision is fp16."""
        return dict(self._scaler.state_dict())

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`scaler_state` gave."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(state)

    def memory(self) -> Memory:
        """What is in use now: VRAM on a GPU, the resident memory of this process on a CPU."""
        if self.device.type == "cuda":
            _, total = torch.cuda.mem_get_info(self.device)
            held = sum(recorded.held for recorded in self._recorded)  # which the allocator takes for free between two replays
            allocated, peak = torch.cuda.memory_allocated(self.device) + held, torch.cuda.max_memory_allocated(self.device)
            return Memory(str(self.device), allocated, max(allocated, peak), total)
        if self.device.type == "mps":
            allocated, total = torch.mps.current_allocated_memory(), torch.mps.recommended_max_memory()
        else:
            import psutil

            allocated, total = psutil.Process().memory_info().rss, psutil.virtual_memory().total
        self._peak = max(self._peak, allocated)
        return Memory(str(self.device), allocated, self._peak, total)


class StopRequest:
    """Whether a signal has asked the work to end, to be looked at between steps."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __bool__(self) -> bool:
        return self.signal_number is not None

    def agreed(self, processes: Processes) -> bool:
        """Whether any of ``processes`` has been asked; then all of them are. Each must ask at the same place."""
        self.signal_number = processes.largest(self.signal_number or 0) or None
        return bool(self)

    def interruption(self, message: str, hint: str) -> Interrupted:
        """The error to end with."""
        return Interrupted(self.signal_number or signal.SIGINT, message, hint)


@contextmanager
def graceful_stop(processes: Processes = ALONE) -> Iterator[StopRequest]:
    """SIGINT, SIGTERM and SIGHUP set the request, which is told; a second one leaves at once with 130 or 143.

    A launcher of several processes sends each what the terminal has sent it already: that is no second one. Nor is SIGHUP: of a
    terminal that closes, the shell may send one and the kernel another. Who started the process may have it ignored (nohup).
    """
    request = StopRequest()
    echo = _ECHO_SECONDS if processes.count > 1 else 0.0
    first_at = 0.0
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only there
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if number == _HANGUP:
            stops.forget_terminal()
        if not request:
            request.signal_number, first_at = number, time.monotonic()
            stops.ask()
        elif number != _HANGUP and time.monotonic() - first_at >= echo:
            stops.leave(number)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, _HANGUP) if number]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if number != _HANGUP or handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeat_bits(always: bool) -> None:
    """Whether CUDA's libraries may add up in an order that changes from time to time, which is faster."""
    if always:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses cuBLAS
    torch.use_deterministic_algorithms(always)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32

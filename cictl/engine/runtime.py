"""Where and how the work runs: device, precision, gradients across processes, memory, signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from cictl.errors import Interrupted, UsageError
from cictl.events import Memory

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Runtime:
    """The device and the precision, and what depends on them.

    Attributes:
        accelerator: of the library accelerate: the device, and other processes if there are any.
        dtype: of the frozen parts; what is trained is fp32.
    """

    accelerator: Any
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self._peak = 0

    @classmethod
    def create(cls, device: str = "auto", dtype: str = "auto") -> Runtime:
        """Choose the device and the precision.

        Args:
            device: auto, cpu, cuda, cuda:N, mps.
            dtype: auto, fp32, bf16, fp16.

        Raises:
            UsageError: the device is not there.
        """
        from accelerate import Accelerator

        if device not in ("auto", "cpu"):
            _require_device(device)
            os.environ["ACCELERATE_TORCH_DEVICE"] = device
        accelerator = Accelerator(cpu=device == "cpu")
        chosen = _DTYPES.get(dtype) or _best_dtype(accelerator.device)
        return cls(accelerator, chosen)

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def dtype_name(self) -> str:
        return next(name for name, dtype in _DTYPES.items() if dtype == self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of ``loss``, scaled if the precision needs it."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Average the gradients over the processes, step, and clear them."""
        if self.accelerator.num_processes > 1:
            for parameter in parameters:
                parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)

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
            allocated, peak = torch.cuda.memory_allocated(self.device), torch.cuda.max_memory_allocated(self.device)
            return Memory(str(self.device), allocated, peak, total)
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

    def interruption(self, message: str, hint: str) -> Interrupted:
        """The error to end with."""
        return Interrupted(self.signal_number or signal.SIGINT, message, hint)


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM set the request; a second one leaves at once with 130 or 143."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # handlers can be set only there
        yield request
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request:
            os._exit(128 + number)
        request.signal_number = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _best_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32


def _require_device(device: str) -> None:
    kind, _, index = device.partition(":")
    available = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if not available or (index and int(index) >= torch.cuda.device_count()):
        raise UsageError(
            f"model.device is {device}, which this machine does not have", "set model.device to auto", slug="device-missing"
        )

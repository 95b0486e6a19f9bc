"""Work of a GPU that is recorded once, as a CUDA graph, and replayed: hundreds of launches become one.

Nguyen et al., "Accelerating PyTorch with CUDA Graphs", pytorch.org/blog, 2021. It is exact: the same kernels on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cictl.errors import UsageError, means_out_of_memory


@dataclass(frozen=True)
class _Recording:
    """A graph, the memory that it reads its inputs from, and that in which it leaves its outputs."""

    graph: Any
    inputs: tuple[Tensor, ...]
    outputs: dict[str, Tensor]


class Recorded:
    """A function of tensors on a GPU that is recorded the second time, and replayed from then on.

    The first call runs as it is, on a stream of its own, so that the libraries have set themselves up before they are recorded.
    Each combination of shapes and fixed arguments has a recording of its own. What the function reads beside its
    arguments must stay where it is, and what it changes it must change in place; it must not wait for the GPU.

    Args:
        function: takes tensors and fixed keyword arguments; returns tensors by name.
        record: whether to do so; without it every call runs as it is.

    Attributes:
        held: bytes of the GPU's memory that the recordings work in, for as long as they are there.
    """

    def __init__(self, function: Callable[..., dict[str, Tensor]], *, record: bool) -> None:
        self.function = function
        self.record = record
        self.held = 0
        self._recordings: dict[Hashable, _Recording | None] = {}

    def __call__(self, *inputs: Tensor, **fixed: Hashable) -> dict[str, Tensor]:
        """What the function returns; it stays as it is when the next call comes.

        Raises:
            UsageError: the GPU, its driver or what the function does allows no recording.
        """
        if not self.record:
            return self.function(*inputs, **fixed)
        key = (*((given.shape, given.dtype) for given in inputs), *sorted(fixed.items()))
        if key not in self._recordings:
            self._recordings[key] = None
            return self._apart(inputs, fixed)
        recording = self._recordings[key]
        if recording is None:
            recording = self._recordings[key] = self._recorded(inputs, fixed)
        for place, given in zip(recording.inputs, inputs, strict=True):
            place.copy_(given)
        recording.graph.replay()
        return {name: output.clone() for name, output in recording.outputs.items()}

    def forget(self) -> None:
        """Let go of the recordings and of their memory; the next call begins anew."""
        self._recordings.clear()
        self.held = 0

    def _apart(self, inputs: tuple[Tensor, ...], fixed: dict[str, Hashable]) -> dict[str, Tensor]:
        own = _stream(inputs[0].device)
        current = torch.cuda.current_stream(own.device)
        own.wait_stream(current)
        with torch.cuda.stream(own):
            outputs = self.function(*inputs, **fixed)
        current.wait_stream(own)
        return outputs

    def _recorded(self, inputs: tuple[Tensor, ...], fixed: dict[str, Hashable]) -> _Recording:
        places = tuple(given.clone() for given in inputs)
        graph, own = torch.cuda.CUDAGraph(), _stream(inputs[0].device)
        try:
            # Twice: the library leaves its stream the current one where a recording fails.
            with torch.cuda.stream(own), torch.cuda.graph(graph, stream=own):
                before = torch.cuda.memory_reserved(own.device)
                outputs = self.function(*places, **fixed)
                held = torch.cuda.memory_reserved(own.device) - before
        except RuntimeError as error:  # not of the function itself, which has run already
            if means_out_of_memory(error):
                raise
            raise UsageError(
                f"the GPU cannot record its work as a CUDA graph: {str(error).strip().splitlines()[0]}",
                "without it the same is done more slowly: --set model.cuda_graph=false",
                slug="graph-not-recorded",
            ) from None
        self.held += held
        return _Recording(graph, places, outputs)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of ``device`` that work is recorded on.

    One for all that is recorded there: the libraries keep working memory for every stream that they have seen, 8 or 32 MiB. And
    the one that torch would take by itself belongs to the device that was the first to record, on which no other's work is seen.
    """
    return torch.cuda.Stream(device)

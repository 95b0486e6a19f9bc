"""A CUDA graph that is pretended on the CPU: what was done while it was recorded is done again, on the same memory.

As with a real one, recording changes nothing: what it wrote into memory that was there before is put back. A replay reads
from where the recorded operations read and writes to where they wrote, whatever lies there by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cictl.engine import recorded


@dataclass(frozen=True)
class Stream:
    """Of a device; what is done on it is done at once."""

    device: torch.device

    def wait_stream(self, other: Stream) -> None:
        assert other.device == self.device


class Graph(TorchDispatchMode):
    """Takes note of every operation while it is entered.

    Attributes:
        operations: how many it has.
        replays: how often it was replayed.
        stream: that it was recorded on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._own: set[int] = set()
        self._kept: list[Tensor] = []  # so that no address comes twice
        self.replays = 0
        self.stream: Stream | None = None

    @property
    def operations(self) -> int:
        return len(self._done)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        options = options or {}
        if function._schema.is_mutable:
            for tensor in _tensors((arguments, options)):
                place = tensor.untyped_storage().data_ptr()
                if place not in self._own and place not in self._before:
                    self._before[place] = (tensor, tensor.detach().clone())
        result = function(*arguments, **options)
        outputs = _tensors(result)
        self._done.append((function, arguments, options, outputs))
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((arguments, options))}
        self._own |= {place for output in outputs if (place := output.untyped_storage().data_ptr()) not in given}
        self._kept += outputs
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for tensor, before in self._before.values():
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Do all of it again."""
        self.replays += 1
        for function, arguments, options, outputs in self._done:
            for place, output in zip(outputs, _tensors(function(*arguments, **options)), strict=True):
                if place.data_ptr() != output.data_ptr():
                    place.copy_(output)


@contextmanager
def pretended_graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Graph]]:
    """Those that are recorded from now on."""
    made: list[Graph] = []

    def make() -> Graph:
        made.append(Graph())
        return made[-1]

    def record(graph: Graph, stream: Stream) -> Graph:
        graph.stream = stream
        return graph

    for name, value in {
        "CUDAGraph": make, "graph": record, "Stream": Stream, "current_stream": Stream,
        "stream": lambda own: nullcontext(), "memory_reserved": lambda device=None: 2**30,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    recorded._stream.cache_clear()
    yield made
    recorded._stream.cache_clear()


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]

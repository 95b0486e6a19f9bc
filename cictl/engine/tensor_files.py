"""Safetensors files, written and read tensor by tensor, with bytes that are the same every time.

The library's writer puts metadata of several keys in random order, holds a second copy of the tensors, and
reports a full disk without its error number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

_NAMES = {torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}  # in which the library writes them


def serialized(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: header, then the tensors by type and name, as the library has it.

    Args:
        tensors: on any device; one at a time is brought to the CPU.
        metadata: texts by key.
    """
    order = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield _bytes(tensors[name])


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: in which file, from which byte, and what it is."""

    path: Path
    begin: int
    dtype: torch.dtype
    shape: Sequence[int]


def places(path: Path) -> dict[str, Place]:
    """Where the tensors of a file lie that :func:`serialized` gave, by name."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: Place(path, 8 + length + entry["data_offsets"][0], _DTYPES[entry["dtype"]], entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


class StoredTensors(Mapping[str, Tensor]):
    """Tensors on the disk, each read when it is asked for and not kept: no more than one has to be in memory.

    Args:
        places: where each lies.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        tensor = torch.empty(place.shape, dtype=place.dtype)
        with open(place.path, "rb") as file:
            file.seek(place.begin)
            if file.readinto(_bytes(tensor)) < tensor.nbytes:  # its own memory, which is read into
                raise OSError(f"{place.path} ends within {name}")
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file has these tensors, bit for bit, and no others."""
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(tensors):
                return False
            return all(_same(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    except Exception:  # whatever it is, it is not these tensors
        return False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)

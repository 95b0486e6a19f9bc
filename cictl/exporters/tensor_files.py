"""Safetensors files, written piece by piece with bytes that are the same every time.

The library's writer puts metadata of several keys in random order, holds a second copy of the tensors, and
reports a full disk without its error number.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from cictl.exporters.content import Tensors

_NAMES = {torch.int64: "I64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}  # in which the library writes them


def serialized(content: Tensors) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file: header, then the tensors by type and name, as the library has it."""
    order = sorted(content.tensors, key=lambda name: (_ORDER[content.tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(sorted(content.metadata.items()))} if content.metadata else {}
    end = 0
    for name in order:
        tensor, begin = content.tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield from _bytes(content.tensors[name])


def _bytes(tensor: Tensor) -> Iterator[memoryview]:
    flat = tensor.reshape(-1)
    if flat.numel():
        yield flat.view(torch.uint8).numpy().data


def holds(path: Path, content: Tensors) -> bool:
    """Whether the file has these tensors, bit for bit, and no others."""
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(content.tensors):
                return False
            return all(_same(file.get_tensor(name), tensor) for name, tensor in content.tensors.items())
    except Exception:  # whatever it is, it is not this export
        return False


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)

"""The header of a safetensors file: what it says of itself, and whether the file is whole. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cictl.errors import ModelAccessError

PICKLES = (".ckpt", ".bin", ".pt", ".pth")
AGAIN = "download it again; a file of a few KB is often a login page, or a pointer that git lfs pull replaces by the file"
_LARGEST_HEADER = 100_000_000  # what the safetensors library itself accepts
_CONVERT = (
    "most pages offer a .safetensors file beside it; otherwise, if you trust it, make a folder of it and set model.id to that:\n"
    '`python -c \'from diffusers import StableDiffusionPipeline as P; P.from_single_file("FILE").save_pretrained("FOLDER")\'`'
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: the shape of each tensor, and free texts."""

    shapes: Shapes
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """The header of a safetensors file, whose length must be that of the file.

    Raises:
        ModelAccessError: it is a pickle, no safetensors, or not whole.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            begin = file.read(8)
            length = int.from_bytes(begin, "little")
            text = file.read(length) if len(begin) == 8 and length <= _LARGEST_HEADER else b""
    except OSError as error:
        raise ModelAccessError(
            f"{path} cannot be read: {error.strerror}",
            "give yourself the right to read it: chmod u+r",
            slug="model-file-unreadable",
        ) from None
    # The first byte alone says nothing: a header's length can begin with 0x80 too.
    if path.suffix.lower() in PICKLES or (text[:1] != b"{" and begin.startswith((b"PK\x03\x04", b"\x80"))):
        raise ModelAccessError(
            f"{path} is a pickle: loading one can run any code that its author put into it",
            _CONVERT,
            slug="model-file-is-a-pickle",
        )
    if not text.startswith(b"{"):
        raise ModelAccessError(f"{path} is no safetensors file ({size} bytes)", AGAIN, slug="model-file-not-safetensors")
    if len(text) < length:
        raise _truncated(path, size, 8 + length)
    try:
        fields = json.loads(text)
        metadata = {key: str(value) for key, value in fields.pop("__metadata__", {}).items()}
        ends = [8 + length + int(field["data_offsets"][1]) for field in fields.values()]
        shapes = {name: tuple(map(int, field["shape"])) for name, field in fields.items()}
        if any(side < 0 for shape in shapes.values() for side in shape):
            raise ValueError("a negative side")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        raise ModelAccessError(
            f"{path} is no safetensors file: its header cannot be read", AGAIN, slug="model-file-without-header"
        ) from None
    if max(ends, default=8 + length) > size:
        raise _truncated(path, size, max(ends))
    return Header(shapes, metadata)


def _truncated(path: Path, size: int, expected: int) -> ModelAccessError:
    return ModelAccessError(f"{path} is not whole: it has {size} bytes of {expected}", AGAIN, slug="model-file-truncated")

"""Format ``safetensors``: the embedding and the exact K/V deltas, as ComfyUI and A1111 load them.

Two files, named after the concept, since A1111 takes the file's name for the word to type:
``embeddings/NAME.safetensors`` with the one key ``emb_params`` [m, D], and ``loras/NAME.safetensors`` in
LyCORIS' "full" layout, ``lora_unet_<layer>.diff`` = W - W0, without any decomposition.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from cictl.errors import CictlError, ResourceError, StateError
from cictl.files import write_atomic

NAME = "safetensors"


@dataclass(frozen=True)
class Exportable:
    """What an exporter may read: nothing of the auxiliary tokens or pathway is in it.

    Attributes:
        name: of the concept.
        embedding: vectors of S*, [m, D].
        key_values: tuned W_k, W_v by the base's names; empty before stage 2.
        base_key_values: W0_k, W0_v of the same names.
        facts: for the metadata; no paths.
    """

    name: str
    embedding: Tensor
    key_values: Mapping[str, Tensor]
    base_key_values: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Exported:
    """A file that was written and read back, or that was there already (``kept``)."""

    path: Path
    size: int
    kept: bool


def export(source: Exportable, folder: Path, *, force: bool = False) -> list[Exported]:
    """Write the files below ``folder``, read each back and compare.

    Args:
        force: replace files that hold something else.

    Raises:
        StateError: a file holds something else already.
        ResourceError: the disk is full.
        CictlError: what was read back is not what was written; the file is removed.
    """
    files = {Path("embeddings") / f"{source.name}.safetensors": {"emb_params": source.embedding.float().contiguous()}}
    if source.key_values:
        files[Path("loras") / f"{source.name}.safetensors"] = deltas(source.key_values, source.base_key_values)
    for relative, tensors in files.items():
        _require_replaceable(folder / relative, tensors, force)
    return [_write(folder / relative, tensors, source.facts) for relative, tensors in files.items()]


def deltas(tuned: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W - W0 of each weight by LyCORIS' name for it, in fp32."""
    named = {}
    for name, weight in tuned.items():
        layer = name.removesuffix(".weight").replace(".", "_")
        named[f"lora_unet_{layer}.diff"] = (weight.float() - base[name].float()).contiguous()
    return named


def usage(source: Exportable) -> dict[str, str]:
    """What to type, by program."""
    words = source.name
    if not source.key_values:
        return {"ComfyUI": f"embedding:{words}", "A1111 / Forge": words}
    return {
        "ComfyUI": f"embedding:{words}, and a Load LoRA node with {words}.safetensors at strength 1",
        "A1111 / Forge": f"{words} <lora:{words}:1>",
    }


def _require_replaceable(path: Path, tensors: Mapping[str, Tensor], force: bool) -> None:
    if path.exists() and not force and not _equal(path, tensors):
        raise StateError(f"{path} holds another export", "--force replaces it; --out writes elsewhere")


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Exported:
    # One JSON key: several would be written in random order, and the bytes would differ from run to run.
    content = save(dict(tensors), {"cictl": json.dumps(dict(facts), sort_keys=True)})
    if path.exists() and path.read_bytes() == content:
        return Exported(path, len(content), kept=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}", "make room, then the same command again") from None
    if not _equal(path, tensors):
        path.unlink()
        raise CictlError(f"{path} does not read back as it was written, and was removed", "check the disk")
    return Exported(path, len(content), kept=False)


def _equal(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    try:
        found = load(path.read_bytes())
    except Exception:  # whatever it is, it is not this export
        return False
    return found.keys() == tensors.keys() and all(torch.equal(found[key], tensors[key]) for key in tensors)

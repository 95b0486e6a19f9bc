"""Checkpoints: everything that is needed to go on with the same bits, whole or not at all.

A checkpoint is a folder with ``result.safetensors`` (what generation and export read), ``state.safetensors``
(what only training needs: moments, and parameters that the result does not have under their names) and
``manifest.json``. Only safetensors is written or read.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn

from cictl.engine.tensor_files import StoredTensors, places, serialized
from cictl.errors import ResourceError
from cictl.files import as_typed, how_to_write, is_full, sync_folder, write_atomic
from cictl.records import MANIFEST, RESULT, SNAPSHOTS, STATE, Checkpoint, checkpoint_folders, sealed, step_folder
from cictl.sizes import size_in_words

_KEPT = 2  # the newest, and the one before it should the newest be damaged
_MOMENTS = ("exp_avg", "exp_avg_sq")
_PARAMETER = "parameter."


def save_checkpoint(
    stage_folder: Path,
    step: int,
    result: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> Path:
    """Write a checkpoint: staged beside its place, synced, renamed into it; older ones go only afterwards.

    Args:
        stage_folder: where the checkpoints of the stage lie.
        step: the steps that are done.
        result, state: tensors by name, on any device; one at a time is brought to the CPU.
        facts: what else the manifest says (fingerprint, versions, scaler), as JSON can.

    Raises:
        ResourceError: the disk is full or cannot be written, with what to do; the checkpoints before are untouched.
    """
    own = {name: tensor for name, tensor in state.items() if not _is_in(result, name, tensor)}
    target = _write(stage_folder, step, {RESULT: result, STATE: own}, facts)
    for old in checkpoint_folders(stage_folder)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _is_in(result: Mapping[str, Tensor], name: str, tensor: Tensor) -> bool:
    """Whether the result has the parameter ``name`` of the state, bit for bit: all of DreamBooth's UNet, for one."""
    same = result.get(name.removeprefix(_PARAMETER)) if name.startswith(_PARAMETER) else None
    return same is not None and same.dtype == tensor.dtype and torch.equal(same.to(tensor.device), tensor)


def save_snapshot(stage_folder: Path, step: int, result: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Keep the result after ``step`` steps for good, as :func:`save_checkpoint` writes, but without what training needs.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    return _write(stage_folder / SNAPSHOTS, step, {RESULT: result}, facts)


def _write(folder: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> Path:
    """Write the ``files`` of a step and their manifest into ``folder``, whole or not at all."""
    staging = folder / f".staging-{os.getpid()}"
    target = folder / step_folder(step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        hashes = {name: write_atomic(staging / name, serialized(tensors)) for name, tensors in files.items()}
        write_atomic(staging / MANIFEST, sealed({"step": step, **facts, "files": hashes}))
        if target.exists():  # the same step again, after the one on the disk was found damaged
            shutil.rmtree(target)
        staging.rename(target)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        needed = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
        raise _disk_error(error, folder, needed) from None
    return target


def read_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors of one of a checkpoint's files, on the CPU."""
    return dict(StoredTensors(places(checkpoint.folder / name)))


def read_training_state(checkpoint: Checkpoint, names: Iterable[str]) -> Mapping[str, Tensor]:
    """What :func:`training_state` took of the parameters ``names``, out of the two files of a checkpoint, read one by one."""
    state = places(checkpoint.folder / STATE)
    missing = [name for name in names if f"{_PARAMETER}{name}" not in state]
    result = places(checkpoint.folder / RESULT) if missing else {}
    return StoredTensors({**state, **{f"{_PARAMETER}{name}": result[name] for name in missing}})


def parse_tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file, on the CPU."""
    return load(content)


def training_state(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and AdamW's moments where they lie, by name: ``parameter.*``, ``exp_avg.*``, ``exp_avg_sq.*``, ``step.*``."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"{_PARAMETER}{name}"] = parameter.detach()
        moments = optimizer.state.get(parameter, {})
        for key in (*_MOMENTS, "step"):
            if key in moments:
                tensors[f"{key}.{name}"] = torch.as_tensor(moments[key]).detach()
    return tensors


def restore_training_state(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Put back what :func:`training_state` took, bit for bit.

    Args:
        tensors: those of the moments become the optimizer's own.
    """
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"{_PARAMETER}{name}"])
    for name, parameter in parameters.items():
        if f"step.{name}" in tensors:
            optimizer.state[parameter] = {
                "step": tensors[f"step.{name}"].to(parameter.device if optimizer.defaults["fused"] else "cpu"),
                **{key: tensors[f"{key}.{name}"].to(parameter.device) for key in _MOMENTS},
            }


def _disk_error(error: OSError, folder: Path, needed: int) -> ResourceError:
    room = ""
    if is_full(error):
        free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
        room = f" ({size_in_words(needed, 'MiB', decimals=1)} needed, {size_in_words(free, 'MiB', decimals=1)} free)"
    return ResourceError(
        f"the checkpoint cannot be written to {as_typed(folder)}: {error.strerror}{room}",
        how_to_write(folder, error),
        slug="checkpoint-not-written",
    )

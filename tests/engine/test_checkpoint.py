"""Checkpoints on the disk: whole or not at all, and exactly what was trained."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as library

from cictl.engine import checkpoint
from cictl.engine.checkpoint import (
    read_tensors,
    read_training_state,
    restore_training_state,
    save_checkpoint,
    save_snapshot,
    training_state,
)
from cictl.errors import ResourceError
from cictl.records import MANIFEST, RESULT, STATE, checkpoint_folders, latest_checkpoint
from tests.support import assert_same_bits

RESULT_TENSORS = {"a": torch.arange(6.0).reshape(2, 3)}
STATE_TENSORS = {"parameter.a": torch.arange(3.0), "step.a": torch.tensor(3.0)}


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, RESULT_TENSORS, STATE_TENSORS, {"fingerprint": {}, "complete": False})


def test_what_is_saved_reads_back(tmp_path):
    save(tmp_path / "invert", 3)
    found, damaged = latest_checkpoint(tmp_path / "invert")
    assert found is not None and not damaged
    assert found.step == 3
    for name, tensors in ((RESULT, RESULT_TENSORS), (STATE, STATE_TENSORS)):
        read = read_tensors(found, name)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


def test_the_bytes_are_those_of_the_library_and_the_hashes_those_of_the_bytes(tmp_path):
    table = torch.arange(12.0).reshape(4, 3)
    result = {"a": torch.nn.Parameter(table.bfloat16()), "row": table[1]}
    state = {"exp_avg.a": table.double().t(), "step.a": torch.tensor(3.0), "parameter.column": table[:, 1], "empty": table[:0]}
    folder = save_checkpoint(tmp_path, 1, result, state, {})
    hashes = json.loads((folder / MANIFEST).read_text())["files"]
    assert hashes.keys() == {RESULT, STATE}
    for name, tensors in ((RESULT, result), (STATE, state)):
        content = (folder / name).read_bytes()
        assert content == library({key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()})
        assert hashes[name] == hashlib.sha256(content).hexdigest()


def test_what_the_result_has_is_not_stored_a_second_time_and_checkpoints_that_have_it_twice_are_read(tmp_path):
    weight, key = torch.arange(6.0).reshape(2, 3), torch.arange(3.0)
    result = {"weight": weight, "key": key, "half": key.half(), "other": key}
    parameters = {"weight": weight.clone(), "key": key + 1, "half": key.clone(), "own": key.clone()}
    state = {f"parameter.{name}": tensor for name, tensor in parameters.items()} | {"exp_avg.weight": weight, "other": key}
    once = save_checkpoint(tmp_path / "once", 1, result, state, {})
    assert load_file(once / STATE).keys() == state.keys() - {"parameter.weight"}
    checkpoint._write(tmp_path / "twice", 1, {RESULT: result, STATE: state}, {})  # as they were written before
    for folder in ("once", "twice"):
        found, _ = latest_checkpoint(tmp_path / folder)
        assert_same_bits(read_training_state(found, parameters), state)


def test_the_newest_two_are_kept_and_nothing_half_written_is_left(tmp_path):
    for step in (1, 5, 9, 10_000_000):
        save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000009", "step-10000000"]


def test_a_snapshot_is_kept_for_good_and_has_nothing_that_only_training_needs(tmp_path):
    for step in (1, 5, 9):
        folder = save_snapshot(tmp_path, step, RESULT_TENSORS, {})
        assert {path.name for path in folder.iterdir()} == {RESULT, MANIFEST}
    save(tmp_path, 9)
    assert len(list((tmp_path / "snapshots").iterdir())) == 3


def test_views_of_one_tensor_are_saved_as_their_own_values(tmp_path):
    table = torch.arange(12.0).reshape(4, 3)
    folder = save_checkpoint(tmp_path, 1, {"row": table[1], "column": table[:, 1]}, {}, {})
    found, _ = latest_checkpoint(tmp_path)
    assert folder == found.folder
    assert read_tensors(found, RESULT)["column"].tolist() == [1, 4, 7, 10]


def test_the_same_step_can_be_saved_again_over_a_damaged_one(tmp_path):
    save(tmp_path, 4)
    (tmp_path / "step-0000004" / RESULT).write_bytes(b"damaged")
    save(tmp_path, 4)
    assert latest_checkpoint(tmp_path)[0].step == 4


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_full_disk_is_a_resource_error_and_keeps_what_is_there(tmp_path, monkeypatch, failing):
    save(tmp_path, 4)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    real, calls = checkpoint.write_atomic, []

    def full(path: Path, content: object) -> str:
        calls.append(path)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    with pytest.raises(ResourceError, match=r"No space left.*MiB needed.*MiB free") as caught:
        save(tmp_path, 8)
    assert caught.value.exit_code == 5
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [folder.name for folder in checkpoint_folders(tmp_path)] == ["step-0000004"]
    assert latest_checkpoint(tmp_path)[0].step == 4


@pytest.mark.parametrize(
    ("number", "way_on"), [(errno.EACCES, "chmod -R u+rwX"), (errno.EROFS, "copy the workspace"), (errno.EDQUOT, "make room")]
)
def test_what_stands_in_the_way_of_a_checkpoint_is_said_with_what_helps(tmp_path, monkeypatch, number, way_on):
    def fail(path: Path, content: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, "write_atomic", fail)
    with pytest.raises(ResourceError) as caught:
        save(tmp_path, 4)
    assert way_on in caught.value.hint and os.strerror(number) in caught.value.message
    assert ("free" in caught.value.message) == (number == errno.EDQUOT)


def test_a_stage_folder_that_cannot_be_made_is_a_resource_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        save(tmp_path / "file" / "invert", 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_and_moments_come_back_bit_for_bit(dtype):
    def make() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        torch.manual_seed(0)
        parameters = {name: torch.nn.Parameter(torch.randn(3, dtype=dtype)) for name in ("a", "b")}
        return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)

    def step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW) -> None:
        sum((p**4).sum() for p in parameters.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    one, first = make()
    for _ in range(3):
        step(one, first)
    state = {name: tensor.clone() for name, tensor in training_state(one, first).items()}
    other, second = make()
    restore_training_state(state, other, second)
    for _ in range(3):
        step(one, first)
        step(other, second)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert set(state) == {f"{kind}.{name}" for kind in ("parameter", "exp_avg", "exp_avg_sq", "step") for name in ("a", "b")}


def test_what_goes_on_from_a_checkpoint_leaves_it_as_it_is(tmp_path):
    parameters = {"a": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    (parameters["a"] ** 2).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, 1, {"a": parameters["a"].detach()}, training_state(parameters, optimizer), {})
    found, _ = latest_checkpoint(tmp_path)
    state = read_training_state(found, parameters)
    kept = dict(state)
    restore_training_state(state, parameters, optimizer)
    optimizer.step()
    assert not torch.equal(parameters["a"], kept["parameter.a"])
    assert_same_bits(dict(state), kept)
    assert latest_checkpoint(tmp_path)[0] == found

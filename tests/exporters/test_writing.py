"""Files that appear whole or not at all, beside whatever else lies there."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch

from cictl.errors import ResourceError, StateError
from cictl.exporters import writing
from cictl.exporters.content import Tensors
from cictl.exporters.origin import origin_of
from cictl.exporters.writing import write
from cictl.files import sha256_file

HERE = "finetune after 60 steps"


def content(number: float) -> dict:
    return {"a/x.safetensors": Tensors({"x": torch.full((4,), float(number))}, {"cictl": "{}"}), "b.json": b"{}"}


def card(hashes) -> dict:
    return {"README.md": "\n".join(f"{name} {digest}" for name, digest in sorted(hashes.items())).encode()}


def all_files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path):
    folder = tmp_path / "out"
    write(content(1), folder, describe=card, origin=HERE)
    (folder / "a" / "mine.txt").write_text("mine")
    write(content(2), folder, describe=card, origin=HERE, force=True)
    assert (folder / "a" / "mine.txt").read_text() == "mine"
    digest = sha256_file(folder / "a" / "x.safetensors")
    assert f"a/x.safetensors {digest}" in (folder / "README.md").read_text()
    assert set(all_files(tmp_path)) == {"out/a/mine.txt", "out/a/x.safetensors", "out/b.json", "out/README.md"}


def test_one_file_that_is_another_stops_all_of_them(tmp_path):
    (tmp_path / "b.json").write_bytes(b"another")
    with pytest.raises(StateError, match=r"b\.json holds another export"):
        write(content(1), tmp_path, describe=card, origin=HERE)
    assert set(all_files(tmp_path)) == {"b.json"}


@pytest.mark.parametrize(("facts", "said"), [
    ({"stage": "invert", "step": 300}, "of invert after 300 steps; this one is of finetune after 60 steps"),
    ({"stage": "finetune", "step": 45}, "of finetune after 45 steps; this one is of finetune after 60 steps"),
    ({"stage": "finetune", "step": 60}, "also of finetune after 60 steps, but of another training, with other flags"),
    ({}, "which does not say of what; this one is of finetune after 60 steps"),
    (None, "which does not say of what; this one is of finetune after 60 steps"),
])  # fmt: skip
@pytest.mark.parametrize("file", ["a/x.safetensors", "b.json"])
def test_a_refusal_names_what_is_there_and_what_would_be_written(tmp_path, facts, said, file):
    there = Tensors({"x": torch.full((4,), 1.0 if file == "b.json" else 2.0)}, {"cictl": json.dumps(facts)} if facts else {})
    write({**content(1), "a/x.safetensors": there, "b.json": b"[]"}, tmp_path, describe=card, origin="another")
    before = all_files(tmp_path)
    with pytest.raises(StateError) as caught:
        write({**content(1), **({"b.json": b"[]"} if file != "b.json" else {})}, tmp_path, describe=card, origin=HERE)
    assert caught.value.message.startswith(f"{tmp_path / file} holds another export, {said}")
    assert all_files(tmp_path) == before


@pytest.mark.parametrize(
    "header", [b"", b"abc", b"\xff" * 20, (2).to_bytes(8, "little") + b"[]", (2).to_bytes(8, "little") + b"{}"]
)
def test_other_files_are_of_no_training(tmp_path, header):
    (tmp_path / "x").write_bytes(header)
    assert origin_of(tmp_path / "x") == "" == origin_of(tmp_path / "nowhere")


def test_a_card_that_somebody_edited_stays_and_one_that_is_gone_comes_back(tmp_path):
    write(content(1), tmp_path, describe=card, origin=HERE)
    written = (tmp_path / "README.md").read_bytes()
    (tmp_path / "README.md").write_text("edited")
    assert all(file.kept for file in write(content(1), tmp_path, describe=card, origin=HERE))
    assert (tmp_path / "README.md").read_text() == "edited"
    (tmp_path / "README.md").unlink()
    assert all(file.kept for file in write(content(1), tmp_path, describe=card, origin=HERE))
    assert (tmp_path / "README.md").read_bytes() == written


def test_a_missing_file_is_written_and_the_others_are_not_touched(tmp_path):
    write(content(1), tmp_path, describe=card, origin=HERE)
    before = (tmp_path / "a" / "x.safetensors").stat().st_mtime_ns
    (tmp_path / "b.json").unlink()
    assert [file.kept for file in write(content(1), tmp_path, describe=card, origin=HERE)] == [True, False]
    assert (tmp_path / "a" / "x.safetensors").stat().st_mtime_ns == before


def test_equal_tensors_of_another_version_are_written_anew_without_force(tmp_path):
    write(content(1), tmp_path, describe=card, origin=HERE)
    newer = {**content(1), "a/x.safetensors": Tensors({"x": torch.ones(4)}, {"cictl": '{"cictl": "9"}'})}
    assert [file.kept for file in write(newer, tmp_path, describe=card, origin=HERE)] == [False, True]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    old, young = tmp_path / ".exporting-out-1", tmp_path / ".exporting-out-2"
    for folder, hours in ((old, 25), (young, 1)):
        folder.mkdir()
        (folder / "part").write_bytes(b"part")
        os.utime(folder, (time.time() - hours * 3600,) * 2)
    write(content(1), tmp_path / "out", describe=card, origin=HERE)
    assert not old.exists() and young.exists()


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "sha256_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(content(1), tmp_path / "out", describe=card, origin=HERE)
    assert not list(tmp_path.iterdir())


def test_a_file_where_the_folder_should_be_is_a_resource_error(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResourceError, match="out cannot be written"):
        write(content(1), tmp_path / "out", describe=card, origin=HERE)
    assert (tmp_path / "out").read_text() == "a file"


def test_another_files_content_is_copied(tmp_path):
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    assert not write({"copy": tmp_path / "source"}, tmp_path / "out", describe=card, origin=HERE)[0].kept
    assert (tmp_path / "out" / "copy").read_bytes() == b"x" * 3_000_000
    assert write({"copy": tmp_path / "source"}, tmp_path / "out", describe=card, origin=HERE)[0].kept

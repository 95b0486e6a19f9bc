"""Checkpoints and fingerprints as files."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cictl.files import sha256_bytes
from cictl.records import (
    Difference,
    archive,
    beginning_folder,
    checkpoint_folders,
    differences,
    latest_checkpoint,
    read_checkpoint,
    remove_staging,
    sealed,
    step_folder,
)


def make(stage: Path, step: int, **facts) -> Path:
    folder = stage / step_folder(step)
    folder.mkdir(parents=True)
    content = {"result.safetensors": b"result %d" % step, "state.safetensors": b"state %d" % step}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    manifest = {"step": step, "files": {name: sha256_bytes(data) for name, data in content.items()}, **facts}
    (folder / "manifest.json").write_bytes(sealed(manifest))
    return folder


def fingerprint(photographs: dict[str, str] | None = None, **fields) -> dict:
    return {"photographs": photographs or {}, "fields": {key.replace("__", "."): value for key, value in fields.items()}}


def test_the_newest_whole_checkpoint_is_found_by_its_number(tmp_path):
    for step in (2, 10, 9, 12_345_678):
        make(tmp_path, step)
    assert latest_checkpoint(tmp_path)[0].step == 12_345_678
    assert [int(folder.name[5:]) for folder in checkpoint_folders(tmp_path)] == [12_345_678, 10, 9, 2]


@pytest.mark.parametrize("name", [".staging-17", "step-12", "step-0000003x", "notes", "step-0000003.old"])
def test_other_folders_are_no_checkpoints(tmp_path, name):
    make(tmp_path, 1)
    make(tmp_path, 3).rename(tmp_path / name)
    found, damaged = latest_checkpoint(tmp_path)
    assert (found.step, damaged) == (1, [])


def test_a_stage_that_was_never_run_has_none(tmp_path):
    assert latest_checkpoint(tmp_path / "nothing") == (None, [])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"step": "x", "files": {}}', "cannot be read"),
        ('{"step": 3, "files": {}}', "does not fit"),
        ('{"step": 4, "files": {"result.safetensors": ""}}', "does not fit"),
        ("\x00", "cannot be read"),
        ('{"step": null, "files": null}', "cannot be read"),
        ('"manifest"', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"step": 1e999, "files": {}}', "cannot be read"),
        ('{"step": 3, "files": {"result.safetensors": "", "../../secret": ""}}', "does not fit"),
        ('{"step": 3, "files": {"result.safetensors": ""}, "concept": "../../elsewhere"}', "does not fit"),
        ('{"step": 3, "files": {"result.safetensors": ""}, "concept": "a\\"); import os #"}', "does not fit"),
        ('{"step": 3, "files": {"result.safetensors": ""}, "stage": "another"}', "does not fit"),
    ],
)
def test_a_manifest_that_is_none_is_a_damaged_checkpoint(tmp_path, content, problem):
    make(tmp_path, 2)
    with suppress(ValueError, TypeError, RecursionError):  # a seal that is right must not be enough
        content = sealed({**json.loads(content)}).decode()
    (make(tmp_path, 3) / "manifest.json").write_text(content)
    found, damaged = latest_checkpoint(tmp_path)
    assert found.step == 2
    assert len(damaged) == 1
    assert problem in damaged[0]
    assert "step-0000003" in damaged[0]


@pytest.mark.parametrize("name", ["result.safetensors", "state.safetensors"])
def test_damage_of_the_same_length_is_found_only_where_files_are_read(tmp_path, name):
    folder = make(tmp_path, 3)
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert read_checkpoint(folder)[1] == f"{name} is damaged (its sha256 is not what the manifest says)"
    assert read_checkpoint(folder, verify=False)[0].step == 3
    for one in ("result.safetensors", "state.safetensors"):
        assert (read_checkpoint(folder, verify=one)[0] is None) == (one == name)
    path.unlink()
    assert read_checkpoint(folder, verify=False) == (None, f"{name} is missing")


def test_differences_name_each_field_and_photograph():
    before = fingerprint({"a": "a.png", "b": "b.png", "d": "d.png"}, seed=0, invert__steps=3, data__x=[1])
    now = fingerprint({"b": "renamed.png", "c": "c.png", "e": "d.png"}, seed=1, invert__steps=3, data__x=[2])
    assert differences(before, now) == [
        Difference("photographs", "a.png", None),
        Difference("photographs", "d.png", "d.png"),
        Difference("photographs", None, "c.png"),
        Difference("seed", 0, 1),
        Difference("data.x", [1], [2]),
    ]


def test_equal_fingerprints_do_not_differ_after_a_round_trip_through_json():
    before = fingerprint({"a": "a.png"}, rate=5e-4, big=0.1 + 0.2, prompts=["S*"], revision=None, seed=2**62)
    assert differences(json.loads(json.dumps(before)), before) == []


@pytest.mark.parametrize(("before", "now", "count"), [(None, "x", 0), ("x", None, 0), ("x", "y", 1), (None, None, 0)])
def test_an_identity_that_cannot_be_known_without_a_network_counts_as_unchanged(before, now, count):
    assert len(differences(fingerprint(identity__model=before), fingerprint(identity__model=now))) == count


@pytest.mark.parametrize(("before", "now"), [(None, "x"), ("x", None)])
def test_a_setting_that_was_or_becomes_null_is_a_difference(before, now):
    assert differences(fingerprint(model__revision=before), fingerprint(model__revision=now))


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("model__id", "identity__model"),
        ("model__revision", "identity__model"),
        ("model__clip", "identity__clip"),
        ("model__clip_revision", "identity__clip"),
    ],
)
def test_a_model_by_another_name_is_the_same_if_its_weights_are_known_to_be(name, identity):
    before = fingerprint(**{name: "/old/model", identity: "x"})
    assert differences(before, fingerprint(**{name: "/new/model", identity: "x"})) == []
    assert len(differences(before, fingerprint(**{name: "/new/model", identity: "y"}))) == 2
    assert len(differences(before, fingerprint(**{name: "/new/model", identity: None}))) == 1


def test_a_field_that_one_version_does_not_know_is_no_difference():
    assert differences(fingerprint(old=1, seed=0), fingerprint(new=2, seed=0)) == []


def test_archives_are_numbered_and_never_overwritten(tmp_path):
    contents = []
    for number in range(3):
        make(tmp_path / "checkpoints" / "invert", number)
        contents.append(archive(tmp_path / "checkpoints" / "invert", "today"))
    assert [path.name for path in contents] == ["invert-today", "invert-today-2", "invert-today-3"]
    for number, path in enumerate(contents):
        assert (path / step_folder(number) / "manifest.json").exists()
    assert not (tmp_path / "checkpoints" / "invert").exists()


def test_only_what_is_half_written_is_removed(tmp_path):
    stage = tmp_path / "invert"
    whole = [make(stage, 1), make(stage / "snapshots", 1)]
    for place in (stage, stage / "snapshots"):
        (place / ".staging-99" / "deep").mkdir(parents=True)
    make(beginning_folder(stage), 0)
    remove_staging(stage)
    assert sorted(path.parent for path in tmp_path.rglob("manifest.json")) == sorted(whole)
    assert not list(tmp_path.rglob(".*"))


def test_records_can_be_read_without_torch():
    code = "import sys, cictl.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

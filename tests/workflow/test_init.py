"""New workspaces."""

from __future__ import annotations

import errno
import json
import shutil

import pytest
from typer.testing import CliRunner

from cictl.cli.app import app
from cictl.config import Sources, load_config
from cictl.errors import ResourceError, StateError, UsageError
from cictl.workflow import init, status


def test_a_new_workspace_is_whole_and_says_what_is_next(tmp_path, photographs):
    workspace = init.run(tmp_path / "My Teapot", images=[photographs[0].parent])
    config = load_config(Sources(workspace.config_file))
    assert config.concept.name == "my-teapot"
    assert sorted(path.name for path in workspace.images.iterdir()) == sorted(path.name for path in photographs)
    assert {path.name for path in workspace.root.iterdir()} == {
        "images", "checkpoints", "outputs", "ci.yaml", "README.md", ".gitignore",
    }  # fmt: skip
    assert "{name}" not in (workspace.root / "README.md").read_text()
    assert status.run(workspace).next == "cictl invert"


def test_what_is_left_out_of_a_folder_is_named_and_what_is_still_wanted(tmp_path, photographs):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photographs[0], folder)
    (folder / "other.avif").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    typed = ["init", str(tmp_path / "a"), "--images", str(folder)]
    shown = CliRunner().invoke(app, typed).stdout
    assert "left out" in shown and "other.avif" in shown and "notes" not in shown
    assert "next: put more photographs, three to six in all, into" in shown
    typed[1] += "b"
    assert json.loads(CliRunner().invoke(app, [*typed, "--json"]).stdout)["left_out"] == [str(folder / "other.avif")]


def test_a_workspace_is_never_made_over_another(tmp_path):
    workspace = init.run(tmp_path / "my a")
    workspace.config_file.write_text("seed: 5\n")
    for place in (workspace.root, tmp_path / "not-there" / ".." / "my a"):
        with pytest.raises(StateError, match="already") as told:
            init.run(place)
        assert told.value.hint.endswith("my a'")
    assert workspace.config_file.read_text() == "seed: 5\n"


@pytest.mark.parametrize("name", ["checkpoints", "README.md", ".gitignore"])
def test_a_folder_with_other_things_is_left_alone(tmp_path, name):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text("mine")
    with pytest.raises(StateError):
        init.run(tmp_path / "a")
    assert (tmp_path / "a" / name).read_text() == "mine"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_picture_that_is_not_there_or_cannot_be_read_makes_nothing(tmp_path, photographs):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"a teapot")
    for path in (tmp_path / "missing.jpg", broken):
        with pytest.raises(UsageError, match=path.name):
            init.run(tmp_path / "a", images=[*photographs, path])
        assert not (tmp_path / "a").exists()


def test_a_model_in_a_folder_is_found_from_everywhere(tmp_path, base, monkeypatch):
    monkeypatch.chdir(base.parent)
    workspace = init.run(tmp_path / "a", model="tiny-base")
    assert load_config(Sources(workspace.config_file)).model.id == str(base.resolve())


@pytest.mark.parametrize("fails", [".gitignore", "README.md", "ci.yaml"])
def test_where_the_disk_is_full_the_same_command_makes_it_once_there_is_room(tmp_path, photographs, monkeypatch, fails):
    def full(path, content):
        if path.name == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        return path.write_bytes(content)

    with monkeypatch.context() as patched:
        patched.setattr(init, "write_atomic", full)
        with pytest.raises(ResourceError, match="No space left") as told:
            init.run(tmp_path / "a", images=photographs)
    assert "make room" in told.value.hint
    assert status.run(init.run(tmp_path / "a", images=photographs)).photographs == [path.name for path in photographs]

"""Finding, naming, locking and writing."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from cictl.errors import BusyError, StateError, UsageError
from cictl.files import write_atomic
from cictl.workspace import Workspace, check_name, find_workspace, slug


@pytest.fixture
def make(tmp_path):
    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "ci.yaml").write_text("")
        return folder

    return make


def test_the_workspace_that_one_is_in_needs_no_words(make):
    folder = make("a")
    assert find_workspace(folder) == (Workspace(folder), "")


def test_a_workspace_above_is_found_and_named(make):
    folder = make("a")
    (folder / "images" / "deep").mkdir(parents=True)
    assert find_workspace(folder / "images" / "deep") == (Workspace(folder), f"using the workspace {folder}")


def test_the_nearest_workspace_above_wins_over_one_below(make):
    outer, inner = make("a"), make("a/b/c")
    assert find_workspace(inner)[0].root == inner
    assert find_workspace(outer / "b")[0].root == outer


def test_the_only_workspace_below_is_found_and_named(make, tmp_path):
    folder = make("my-teapot")
    assert find_workspace(tmp_path) == (Workspace(folder), "using the workspace my-teapot")


def test_several_workspaces_below_are_listed(make, tmp_path):
    for name in ("c", "a b", "d"):
        make(name)
    with pytest.raises(StateError, match=r"there are 3 workspaces here:\n  a b\n  c\n  d") as caught:
        find_workspace(tmp_path)
    assert caught.value.exit_code == 3
    assert "-C 'a b'" in caught.value.hint


def test_a_command_to_type_finds_its_workspace_from_where_one_is(make, tmp_path, monkeypatch):
    one = make("my one")
    monkeypatch.chdir(tmp_path)
    assert Workspace(one).typed("cictl invert") == "cictl invert"
    make("two")
    assert Workspace(one).typed("cictl invert") == "cd 'my one' && cictl invert"
    monkeypatch.chdir(tmp_path / "two")
    assert Workspace(one).typed("cictl invert") == "cd '../my one' && cictl invert"
    monkeypatch.chdir(one)
    assert Workspace(one).typed("cictl invert") == "cictl invert"


def test_a_workspace_further_below_is_not_searched_for(make, tmp_path):
    make("a/b")
    with pytest.raises(StateError, match="no workspace in") as caught:
        find_workspace(tmp_path)
    assert "cictl init" in caught.value.hint


@pytest.mark.parametrize("start", ["a/images", "nowhere", "."])
def test_a_folder_that_was_named_is_taken_as_it_is(make, tmp_path, start):
    folder = make("a")
    (folder / "images").mkdir()
    with pytest.raises(StateError, match=r"is no workspace: it (has no ci.yaml|does not exist)"):
        find_workspace(tmp_path / start, exact=True)
    assert find_workspace(folder, exact=True) == (Workspace(folder), "")


def test_where_there_is_none_the_way_on_is_one_that_leads_on(make, tmp_path):
    def hint(name: str) -> str:
        with pytest.raises(StateError) as caught:
            find_workspace(tmp_path / name, exact=True)
        return caught.value.hint

    assert hint("a") == f"cictl init {tmp_path / 'a'} makes one"
    make("my-teapot")
    assert hint("my-teapt").startswith(f"name one of those in {tmp_path}: my-teapot\n")
    assert f"cictl init {tmp_path}" not in hint("a" * 300)
    for part in ("checkpoints", "images"):
        (tmp_path / "b" / part).mkdir(parents=True)
    assert "put its ci.yaml back" in hint("b") and f"init {tmp_path}" not in hint("b")
    (tmp_path / "b" / "ci.yaml.txt").touch()
    assert hint("b") == f"rename {tmp_path / 'b' / 'ci.yaml.txt'} to ci.yaml"
    with pytest.raises(StateError) as caught:
        find_workspace(tmp_path / "b")
    assert caught.value.hint == hint("b")


def test_paths_are_absolute_whatever_the_folder_was_called(make, tmp_path, monkeypatch):
    make("a")
    monkeypatch.chdir(tmp_path)
    assert find_workspace(Path("a"), exact=True)[0].root == tmp_path / "a"


def test_paths_are_shown_as_one_would_type_them(make, tmp_path, monkeypatch):
    workspace = Workspace(make("a"))
    monkeypatch.chdir(tmp_path)
    assert workspace.shown(workspace.outputs) == os.path.join("a", "outputs")
    monkeypatch.chdir(workspace.root)
    assert workspace.shown(workspace.outputs) == "outputs"
    assert workspace.shown(workspace.root / "-a") == os.path.join(".", "-a")
    monkeypatch.chdir("/")
    assert Path(workspace.shown(workspace.outputs)).absolute() == workspace.outputs


def test_a_workspace_that_one_is_in_is_called_by_its_name(make, tmp_path, monkeypatch):
    workspace = Workspace(make("a"))
    workspace.images.mkdir()
    for place, called in (
        (tmp_path, "a"),
        (workspace.root, "a"),
        (workspace.images, "a"),
        (tmp_path.parent, f"{tmp_path.name}/a"),
    ):
        monkeypatch.chdir(place)
        assert workspace.called == called


# -- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "my-teapot", "a1", "1", "a" * 40])
def test_names_of_letters_digits_and_dashes_are_taken(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "A",
        "my teapot",
        "-a",
        "a-",
        "a" * 41,
        "a_b",
        "<a>",
        "../a",
        "é",
        "a\n",
        "a/b",
        "con",
    ],
)
def test_other_names_are_refused_with_one_that_would_do(name):
    with pytest.raises(UsageError) as caught:
        check_name(name)
    proposed = caught.value.hint.rpartition("--name ")[2]
    assert check_name(proposed) == proposed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cube-shaped S* in the snow!", "a-cube-shaped-s-in-the-snow"),
        ("", "untitled"),
        ("***", "untitled"),
        ("x" * 99, "x" * 48),
        ("x" * 47 + " y", "x" * 47),
        ("con", "con-"),
        ("../../etc", "etc"),
        ("ab c" + "-" * 60, "ab-c"),
    ],
)
def test_any_text_becomes_a_file_name(text, expected):
    assert slug(text) == expected


# -- the lock ---------------------------------------------------------------------------------------


def hold(root: Path, ready, release) -> None:
    with Workspace(root).lock("cictl invert"):
        ready.set()
        release.wait(30)


def test_a_second_writer_is_told_who_is_writing_and_can_write_afterwards(make):
    workspace = Workspace(make("a"))
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(workspace.root, ready, release))
    holder.start()
    assert ready.wait(20)
    try:
        with (
            pytest.raises(BusyError, match=rf"`cictl invert` \(process {holder.pid} on .*, since") as caught,
            workspace.lock("x"),
        ):
            pass
        assert caught.value.exit_code == 75
        (workspace.checkpoints / ".lock-holder.json").write_text("{")
        with pytest.raises(BusyError, match="another cictl process"), workspace.lock("x"):
            pass
    finally:
        release.set()
        holder.join(20)
    with workspace.lock("cictl invert"):
        pass


def test_the_lock_dies_with_its_holder(make):
    workspace = Workspace(make("a"))
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(workspace.root, ready, release))
    holder.start()
    assert ready.wait(20)
    holder.kill()
    holder.join(20)
    with workspace.lock("cictl invert"):
        pass


# -- writing ----------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_a_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"a long old content")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"

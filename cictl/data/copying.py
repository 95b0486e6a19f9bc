"""Photographs copied into a workspace: all of them or none, and nothing overwritten. No torch."""

# os.path.isfile and its kin answer False where Path.is_file of Python 3.11 raises: no permission behind a link.
# ruff: noqa: PTH112, PTH113

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from cictl.data.photographs import examine, further_down, list_files, pictures_not_read
from cictl.data.pixels import UnusableError
from cictl.errors import UsageError
from cictl.files import sha256_file, shown


def copy_into(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Copy pictures into ``folder``, which is made if it is absent; the copies, in the order given.

    A name that is taken gets -2, -3, ... before the suffix; but a file that ``folder`` already holds under
    its name, with the same bytes, is not copied again (the copy would be refused as a duplicate).

    Args:
        paths: files, or folders that stand for the picture files in them.
        folder: where the copies go. Nothing in it is overwritten.

    Raises:
        UsageError: some paths are missing, or cannot be used as photographs; all are named, and nothing is copied.
        OSError: as the file system gives it (errno 28 on a full disk); no part of a file is left.
    """
    sources: list[Path] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for path in paths:
        if os.path.isdir(path):
            pictures = list_files(path)
            if not pictures:
                faults.append(f"{path}: holds no photographs{further_down(path)}")
        else:
            pictures = [path]
        for picture in pictures:
            fault = _fault_of_source(picture, seen)
            if fault:
                faults.append(f"{picture}: {fault}")
            else:
                sources.append(picture)
    if faults:
        raise UsageError(
            ["these cannot be copied:", *(f"  {fault}" for fault in faults)],
            "correct the paths, replace or remove these files, then the same command again; nothing was copied",
            slug="photographs-not-copied",
        )
    folder.mkdir(parents=True, exist_ok=True)
    copies = [_copy(source, folder) for source in sources]
    return list(dict.fromkeys(copies))


def left_out(paths: Sequence[Path]) -> list[str]:
    """The pictures in folders among ``paths`` that :func:`copy_into` passes over, since it does not read them by such names."""
    return [shown(str(path)) for folder in paths if os.path.isdir(folder) for path in pictures_not_read(folder)]


def _fault_of_source(path: Path, seen: dict[str, str]) -> str:
    """Why ``path`` cannot be copied as a photograph; "" if it can. For ``seen`` see :func:`examine`."""
    if not os.path.lexists(path):
        return "does not exist"
    if not os.path.isfile(path):
        return "a broken link" if path.is_symlink() else "not a file"
    if not os.access(path, os.R_OK):
        return "cannot be read: permission denied"
    try:
        examine(path, seen)
    except UnusableError as error:
        return str(error)
    return ""


def _copy(source: Path, folder: Path) -> Path:
    """Copy the bytes of ``source`` to a free name in ``folder``; where it ended up."""
    name = Path(source.name.lstrip("."))  # A hidden file would not be seen again.
    for number in itertools.count(1):
        target = folder / (name.name if number == 1 else f"{name.stem}-{number}{name.suffix}")
        try:
            with (
                open(source, "rb") as original,
                open(target, "xb") as copy,
            ):  # x: never overwrites, even in a race
                try:
                    shutil.copyfileobj(original, copy)
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
            return target
        except FileExistsError:
            if os.path.isfile(target) and sha256_file(target) == sha256_file(source):
                return target
    raise AssertionError("the numbers do not end")

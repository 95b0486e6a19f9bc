"""Putting an export on the disk: whole or not at all, read back, and compared with what it should hold."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cictl.engine.tensor_files import holds, serialized
from cictl.errors import CictlError, ResourceError, StateError
from cictl.exporters.content import Content, Tensors
from cictl.exporters.origin import origin_of
from cictl.files import how_to_write, is_there, sha256_file, sync_folder

_PIECE = 1 << 20
_STAGING = ".exporting-"
CARD = "README.md"
_ABANDONED_SECONDS = 24 * 3600

Hashes = Mapping[str, str]


@dataclass(frozen=True)
class Exported:
    """A file that was written and read back, or that was there already (``kept``)."""

    path: Path
    size: int
    kept: bool


def write(
    files: Mapping[str, Content],
    folder: Path,
    *,
    describe: Callable[[Hashes], Mapping[str, Content]],
    origin: str,
    force: bool = False,
) -> list[Exported]:
    """Write ``files`` below ``folder``, read each back and compare.

    Args:
        files: contents by path below ``folder``.
        describe: what lies beside them, given the sha256 of each file: :data:`CARD` and its picture. They are written
            with them, or where there is no card; but they do not make an export another, since pictures come and go.
        origin: which training they are of, for the message of a refusal.
        force: replace files that hold something else.

    Returns:
        One entry for each of ``files``.

    Raises:
        StateError: a file holds something else already; nothing is written then.
        ResourceError: the disk is full or cannot be written.
        CictlError: what was read back is not what was written; nothing is left of it.
    """
    kept = {name for name, content in files.items() if _same_bytes(folder / name, content)}
    if not force:
        _require_replaceable(files, folder, kept, origin)
    if len(kept) < len(files) or not (folder / CARD).exists():
        with _disk(folder):
            _write(files, kept, folder, describe)
    return [Exported(folder / name, (folder / name).stat().st_size, name in kept) for name in files]


def _require_replaceable(files: Mapping[str, Content], folder: Path, kept: set[str], origin: str) -> None:
    """What is not kept must not be there, or hold these tensors: so it does if another version wrote it, which says so in it.

    Raises:
        StateError: something else is there; the message says of which training, if it is an export.
    """
    for name, content in files.items():
        path = folder / name
        if name in kept or not is_there(path) or (isinstance(content, Tensors) and holds(path, content.tensors)):
            continue
        there = origin_of(path) or next(filter(None, (origin_of(folder / other) for other in files)), "")
        if there == origin:
            what = f"also of {origin}, but of another training, with other flags, or changed since"
        else:
            what = f"{f'of {there}' if there else 'which does not say of what'}; this one is of {origin}"
        raise StateError(
            f"{path} holds another export, {what}", "--force replaces it; --out writes elsewhere", slug="export-exists"
        )


def _write(
    files: Mapping[str, Content], kept: set[str], folder: Path, describe: Callable[[Hashes], Mapping[str, Content]]
) -> None:
    fresh = not folder.exists()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _staging(folder) as staging:
        missing = {name: content for name, content in files.items() if name not in kept}
        for name, content in missing.items():
            _put(staging / name, content)
        where = {name: (folder if name in kept else staging) / name for name in files}
        beside = describe({name: sha256_file(path) for name, path in where.items()})
        for name, content in beside.items():
            _put(staging / name, content)
        for name, content in {**missing, **beside}.items():
            if not _same_bytes(staging / name, content) or (
                isinstance(content, Tensors) and not holds(staging / name, content.tensors)
            ):
                raise CictlError(
                    f"{folder / name} does not read back as it was written, and was removed",
                    "check the disk and the memory of this machine, then the same command again",
                    slug="export-not-read-back",
                )
        if fresh:
            staging.rename(folder)  # all of it appears at once
        else:
            for name in (*missing, *beside):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / name, folder / name)
    for changed in {(folder / name).parent for name in (*missing, *beside)} | {folder.parent}:
        sync_folder(changed)


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder in ``folder``, or where that is to be: on the same disk, and gone afterwards."""
    parent = folder if folder.exists() else folder.parent
    for old in parent.glob(f"{_STAGING}*"):
        if time.time() - old.stat().st_mtime > _ABANDONED_SECONDS:  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
    staging = parent / f"{_STAGING}{folder.name}-{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for piece in _pieces(content):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _same_bytes(path: Path, content: Content) -> bool:
    """Whether a file is there, with exactly this content."""
    with suppress(OSError), open(path, "rb") as file:
        return all(file.read(len(piece)) == piece for piece in _pieces(content)) and not file.read(1)
    return False


def _pieces(content: Content) -> Iterator[bytes | memoryview]:
    if isinstance(content, Tensors):
        yield from serialized(content.tensors, content.metadata)
    elif isinstance(content, bytes):
        yield content
    else:
        with open(content, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written: {error.strerror or error}",
            how_to_write(folder, error),
            slug="export-not-written",
        ) from None

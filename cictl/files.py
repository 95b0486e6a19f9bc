"""Files that appear whole or not at all, their fingerprints, and paths as people write them. Imports nothing of ours."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_SAMPLED_BLOCKS = 64
_SAMPLED_BLOCK_BYTES = 4096


def write_atomic(path: Path, content: bytes | Iterable[bytes | memoryview]) -> str:
    """Write ``content`` to ``path`` so that a reader sees the old file or the new one, never a part.

    The bytes are on the disk before the rename (fsync of the file, then of its folder).

    Args:
        content: all of it, or piece by piece, so that no more than a piece has to be in memory.

    Returns:
        The SHA-256 of what was to be written, in hex.

    Raises:
        OSError: as the file system gives it (errno 28 on a full disk); ``path`` is then untouched.
    """
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    digest = hashlib.sha256()
    try:
        with open(staging, "wb") as file:
            for piece in [content] if isinstance(content, bytes) else content:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staging, path)
    except BaseException:
        with contextlib.suppress(OSError):
            staging.unlink()
        raise
    sync_folder(path.parent)
    return digest.hexdigest()


def is_full(error: OSError) -> bool:
    """Whether there was no room: on the disk, in a quota, or in a file."""
    return error.errno in _FULL


def how_to_write(path: Path, error: OSError) -> str:
    """What is to be done about ``path``, or a file in it, which could not be written for ``error``."""
    if is_full(error):
        return "make room, then the same command again"
    if error.errno == errno.EROFS:
        return "its disk can only be read: copy the workspace to another one, and go on there"
    if error.errno in _FORBIDDEN:
        folder = path if path.is_dir() else path.parent  # where a file is to be replaced
        return f"allow writing: {how_to_allow(folder)}; then the same command again"
    return "see to it, or name another folder where the command takes one; then the same command again"


def how_to_allow(path: Path) -> str:
    """The command that lets ``path`` be read and written; what cannot be seen of it is behind a folder that cannot be opened."""
    there = next(one for one in (path, *path.absolute().parents) if os.access(one, os.F_OK))
    return f"chmod -R u+rwX {quoted(as_typed(there))}"


def as_typed(path: Path) -> str:
    """``path`` as a person would type it from where they are."""
    with contextlib.suppress(ValueError, OSError):
        relative = os.path.relpath(path)
        if not relative.startswith(os.path.join("..", "..")):
            return os.path.join(os.curdir, relative) if relative.startswith("-") else relative  # else it is read as an option
    return str(path)


def shown(name: str) -> str:
    """``name`` for a message: escaped where it would break the line or the terminal, or is no valid text."""
    return name if name.isprintable() else ascii(name)


def quoted(text: str) -> str:
    """``text`` as one word of a command that a person pastes; on one line, and nothing in it is for the shell or the terminal.

    The names of folders, and of files on the hub, are given by others.
    """
    if text.isprintable():
        return shlex.quote(text)
    plain = (
        character
        if character.isprintable() and character not in "\\'"
        else "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
        for character in text
    )
    return f"$'{''.join(plain)}'"


def absolute(path: Path) -> Path:
    """``path`` from the root, without "..": behind a folder that is not there yet nothing is, until that is made."""
    return path.resolve() if os.pardir in path.parts else path.absolute()


def from_home(text: str) -> Path:
    """The path that a person wrote, with the home folder in the place of ~, if there is one of that name."""
    with contextlib.suppress(RuntimeError, ValueError):  # also for a name that none can have
        return Path(text).expanduser()
    return Path(text)


def is_file(path: Path) -> bool:
    """Whether ``path``, which a person wrote, is a file. By a name that none can have, as with the next two, nothing is there."""
    return can_be_made(path) and path.is_file()


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder."""
    return can_be_made(path) and path.is_dir()


def is_there(path: Path) -> bool:
    """Whether anything is at ``path``."""
    return can_be_made(path) and path.exists()


def can_be_made(path: Path) -> bool:
    """Whether the system takes such a name: it is not too long, and holds no NUL."""
    try:
        path.lstat()
    except ValueError:
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def is_text(text: str) -> bool:
    """Whether UTF-8 can write it, as it cannot the bytes of a command line that were none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable. Windows cannot open a folder, and needs no sync."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of ``content``, in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file at ``path``, in hex, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sampled_digest(path: Path) -> str:
    """A quick fingerprint of a large file: its size, its first and last MiB, 64 blocks between.

    It tells two sets of weights apart without reading gigabytes; it does not prove that a file is intact.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(_CHUNK_BYTES))
        for block in range(_SAMPLED_BLOCKS):
            file.seek(size * block // _SAMPLED_BLOCKS)
            digest.update(file.read(_SAMPLED_BLOCK_BYTES))
        file.seek(max(0, size - _CHUNK_BYTES))
        digest.update(file.read())
    return digest.hexdigest()

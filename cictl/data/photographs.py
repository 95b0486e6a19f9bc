"""Find the photographs in a folder, check them all at once, load them. Never changes one; no torch."""

# os.path.isfile and its kin answer False where Path.is_file of Python 3.11 raises: no permission behind a link.
# ruff: noqa: PTH110, PTH112, PTH113

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cictl.data.pixels import UnusableError, decode, suffix_by_content, to_training_pixels
from cictl.errors import UsageError
from cictl.files import quoted, sha256_file, shown

FEWEST = 2  # that can share something
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")
_RAW = (".raw", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw")
_PICTURES_NOT_READ = (".gif", ".avif", ".svg", ".psd", ".jxl", *_RAW)
_FOLDERS_NAMED = 3
_LEVELS_SEARCHED = 2
# What Windows leaves in a folder of pictures; hidden there by an attribute, not by a dot.
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Photograph:
    """One usable photograph.

    Args:
        path: where it is.
        sha256: of the file's bytes, in hex.
        width: in pixels, after the EXIF rotation.
        height: in pixels, after the EXIF rotation.
    """

    path: Path
    sha256: str
    width: int
    height: int

    @property
    def key(self) -> str:
        """The name that binds an auxiliary token to this photograph: 16 hex digits."""
        return self.sha256[:16]

    @property
    def name(self) -> str:
        """The file's name as it can be shown and written anywhere, on one line."""
        return shown(self.path.name)


def list_files(folder: Path) -> list[Path]:
    """The picture files in ``folder`` by suffix, sorted by name; hidden files and subfolders are left out.

    A broken link with such a suffix is listed, so that ``find_photographs`` can name it.

    Raises:
        UsageError: ``folder`` is absent, not a folder, or unreadable.
    """
    return [path for path in _files(folder) if path.suffix.lower() in SUFFIXES]


def pictures_not_read(folder: Path) -> list[Path]:
    """The files in ``folder`` that are pictures, but that :func:`list_files` passes over.

    Raises:
        UsageError: as that.
    """
    others = [path for path in _files(folder) if path.suffix.lower() not in SUFFIXES and os.path.isfile(path)]
    return [path for path in others if path.suffix.lower() in _PICTURES_NOT_READ or suffix_by_content(path)]


def fingerprints(folder: Path) -> dict[str, str]:
    """name -> SHA-256 in hex of each picture file, without decoding; "" for a file that cannot be read.

    Raises:
        UsageError: ``folder`` is absent, not a folder, or unreadable.
    """
    found = {}
    for path in list_files(folder):
        found[path.name] = ""
        if os.path.isfile(path):  # A named pipe would wait forever.
            with contextlib.suppress(OSError):
                found[path.name] = sha256_file(path)
    return found


def find_photographs(folder: Path) -> list[Photograph]:
    """Every photograph in ``folder``, each decoded once as a check, sorted by SHA-256.

    The order is that of the bytes, so renaming a file changes nothing.

    Args:
        folder: the folder of photographs; subfolders are not read.

    Raises:
        UsageError: the folder is absent or empty, some files cannot be used (all are named, a line each), or
            there is only one.
    """
    files = _files(folder)
    if not files:
        raise UsageError(
            f"there are no photographs in {folder}{further_down(folder)}",
            f"put three to six photographs into {folder}, then the same command again",
            slug="photographs-none",
        )
    inside = Path(os.path.realpath(folder))
    photographs: list[Photograph] = []
    faults: list[str] = []
    seen: dict[str, str] = {}
    for path in files:
        try:
            _check_link(path, inside)
            photographs.append(examine(path, seen))
        except UnusableError as error:
            faults.append(f"{path.name}: {error}")
    if faults:
        count = "1 file" if len(faults) == 1 else f"{len(faults)} files"
        raise UsageError(
            [f"{count} in {folder} cannot be used:", *(f"  {fault}" for fault in faults)],
            f"replace or remove these files, then the same command again; keep three to six in {folder}",
            slug="photographs-unusable",
        )
    if len(photographs) < FEWEST:
        raise UsageError(
            f"{folder} holds 1 photograph{further_down(folder)}; {FEWEST} or more are needed: what they share is found by "
            "comparing them with each other (the loss of Eq. 2); with one, that loss is identically zero, and nothing would be "
            "learned",
            f"put three to six photographs into {folder}",
            slug="photographs-too-few",
        )
    return sorted(photographs, key=lambda photograph: photograph.sha256)


def open_upright(path: Path) -> Image.Image:
    """The picture at ``path`` as RGB in sRGB, 8 bits a channel, turned upright by its EXIF, alpha on white.

    Raises:
        UsageError: it cannot be used; the message says why.
    """
    try:
        return decode(path)
    except UnusableError as error:
        raise UsageError(
            f"{path}: {error}", "replace the file, then the same command again", slug="photograph-spoiled"
        ) from error


def load_pixels(photograph: Photograph, resolution: int) -> np.ndarray:
    """The centre square of the photograph, as float32 [3, resolution, resolution] in [-1, 1], RGB in sRGB.

    Raises:
        UsageError: the file can no longer be used; the message says why.
    """
    return to_training_pixels(open_upright(photograph.path), resolution)


def _files(folder: Path) -> list[Path]:
    """Everything in ``folder`` but subfolders and hidden files, sorted by name."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        raise UsageError(
            f"there is no folder {folder}",
            f"make the folder {folder}, and put three to six photographs into it",
            slug="photographs-folder-missing",
        ) from None
    except NotADirectoryError:
        raise UsageError(
            f"{folder} is not a folder",
            "put a folder in its place, with three to six photographs in it",
            slug="photographs-folder-is-file",
        ) from None
    except PermissionError:
        raise UsageError(
            f"{folder} cannot be read: permission denied",
            f"allow reading: chmod u+rx {quoted(str(folder))}",
            slug="photographs-folder-unreadable",
        ) from None
    paths = [folder / name for name in names if not name.startswith(".") and name.lower() not in _SYSTEM_FILES]
    return [path for path in paths if not os.path.isdir(path)]


def examine(path: Path, seen: dict[str, str]) -> Photograph:
    """Check one file fully.

    Args:
        path: the file.
        seen: digest of bytes, or of pixels -> the name that had it first; added to.

    Raises:
        UnusableError: it cannot be used.
    """
    fault = _fault_of_name(path)
    if fault:
        raise UnusableError(fault)
    image = decode(path)
    try:
        sha256 = sha256_file(path)
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror or error}") from error
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    for digest, same in ((sha256, "the same file as"), (pixels, "the same picture, pixel for pixel, as")):
        first = seen.setdefault(digest, path.name)
        if first != path.name:
            raise UnusableError(f"{same} {first}; keep one of them")
    return Photograph(path, sha256, image.width, image.height)


def _check_link(path: Path, inside: Path) -> None:
    """Refuse what is not a file, and a link whose target the folder does not own."""
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(inside):
            broken = "" if os.path.exists(target) else " and is broken"
            raise UnusableError(f"a link that leaves the folder{broken}; put the photograph itself here")
        if not os.path.exists(target):
            raise UnusableError("a broken link; put the photograph itself here")
    if not os.path.isfile(path):
        raise UnusableError("not a file; remove it")


def further_down(folder: Path) -> str:
    """What a message says of picture files in the subfolders of ``folder``, which are not read; "" if there are none."""
    count, places = 0, set()
    for place, below, names in os.walk(folder):
        where = Path(place).relative_to(folder)
        deep = len(where.parts) == _LEVELS_SEARCHED  # the folder may be somebody's home
        below[:] = [] if deep else [name for name in below if not name.startswith(".")]
        found = sum(not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES for name in names)
        if found and where.parts:
            count += found
            places.add(str(where))
    if not count:
        return ""
    named = ", ".join(sorted(places)[:_FOLDERS_NAMED]) + (", ..." if len(places) > _FOLDERS_NAMED else "")
    return f" itself; {count} {'lies' if count == 1 else 'lie'} further down, in {named}, where cictl does not look"


def _fault_of_name(path: Path) -> str:
    """Why a file with this suffix is not read; "" if it is."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    if suffix in _PICTURES_NOT_READ:
        return f"the format {suffix} is not supported; save it as JPEG or PNG"
    if meant := suffix_by_content(path):
        return f"a picture, but its name does not end as one; let it end in {meant}"
    return "not a picture (cictl reads .jpg .png .webp .bmp .tif .heic); remove it from the folder"

"""One file of a model on the hub, byte by byte: what an earlier run has fetched of it is gone on with, and all is verified."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from cictl.errors import CictlError
from cictl.events import DownloadProgress, Observer
from cictl.models import hub_errors
from cictl.models.hub_listing import File
from cictl.models.hub_request import Request

_SECONDS_BETWEEN_EVENTS = 1.0
_ATTEMPTS = 5  # without a new byte


class Meter:
    """Counts bytes, and tells of them now and then."""

    def __init__(self, model: str, total: int, done: int, observe: Observer) -> None:
        self._model, self._total, self._done, self._observe = model, total, done, observe
        self._file, self._told_at = "", float("-inf")

    def begin(self, file: str) -> None:
        """``file`` is the next."""
        self._file = file
        self.add(0)

    def add(self, count: int) -> None:
        """``count`` bytes have come, or have to come again if it is negative."""
        self._done += count
        if self._done < self._total and time.monotonic() - self._told_at >= _SECONDS_BETWEEN_EVENTS:
            self.emit()

    def emit(self) -> None:
        """Tell now."""
        self._told_at = time.monotonic()
        self._observe(DownloadProgress(self._model, self._file, self._done, self._total))

    def end(self) -> None:
        """All is there."""
        self._done = self._total
        self.emit()


def fetch_file(request: Request, commit: str, file: File, blobs: Path, meter: Meter) -> None:
    """Fetch one file to its place in the cache, going on with a part of it; it appears there whole and verified.

    Raises:
        ModelAccessError: the hub refuses, the connection stays cut, or what arrived is something else.
        ResourceError: the disk is full.
    """
    from huggingface_hub.errors import HfHubHTTPError

    part, attempt = part_of(blobs, file), 0
    while (before := _size(part)) != file.size or not part.exists():
        try:
            _stream(request, commit, file, part, meter)
        except HfHubHTTPError as error:  # a kind of OSError, so it comes first
            raise hub_errors.explained(error, request) from None
        except (CictlError, OSError):
            raise
        except Exception as error:  # the network's own errors have no class that the library promises
            attempt = 0 if _size(part) > before else attempt + 1
            if attempt >= _ATTEMPTS:
                raise hub_errors.cut_off(error, request, file.name, _size(part), file.size) from None
            meter.emit()
            time.sleep(min(8.0, 0.5 * 2**attempt))
    if _digest(part, file) != file.hash:
        part.unlink()
        raise hub_errors.damaged(request, file.name)
    part.replace(blobs / file.hash)


def _stream(request: Request, commit: str, file: File, part: Path, meter: Meter) -> None:
    """Append what is missing of ``file`` to ``part``.

    Raises:
        ModelAccessError: more comes than there should be.
        HfHubHTTPError: the hub refuses.
        Exception: of the network.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    have = _size(part)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}  # compressed, bytes could not be counted
    if have:
        headers["Range"] = f"bytes={have}-"
    url = hf_hub_url(request.id, file.name, revision=commit)
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        resumed = have and response.status_code == 206
        if have and not resumed:  # the server knows no ranges and sends the file from its beginning
            meter.add(-have)
        with open(part, "ab" if resumed else "wb", buffering=0) as out:
            for chunk in response.iter_raw():
                out.write(chunk)
                meter.add(len(chunk))
                if out.tell() > file.size:
                    out.truncate(0)
                    raise hub_errors.damaged(request, file.name)
    if _size(part) < file.size:
        raise _EndedEarly("the file ended early")


def part_of(blobs: Path, file: File) -> Path:
    """Where what has come of ``file`` lies until it is whole."""
    return blobs / f"{file.hash}.cictl.incomplete"


def to_come(blobs: Path, absent: Sequence[File]) -> int:
    """Bytes of the files that are not there, less what an earlier run has fetched of them."""
    return sum(file.size - _size(part_of(blobs, file)) for file in absent)


class _EndedEarly(Exception):
    """The server closed the connection before the file's last byte."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path, file: File) -> str:
    digest = hashlib.sha256() if len(file.hash) == 64 else hashlib.sha1(f"blob {file.size}\0".encode())  # git's
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

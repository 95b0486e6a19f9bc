"""Models on the hub: which commit a name means, what of it is on this machine, and fetching the rest.

The files lie in the hub's own cache, where other programs find them and ``hf cache`` manages them. They are fetched
here and not by the hub's library since that begins a file anew after a cut, and the UNet alone has 3.4 GB. The access
token is the library's business: it is read from where ``hf auth login`` or HF_TOKEN put it, and never kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cictl.errors import CictlError, ResourceError
from cictl.events import DownloadProgress, Note, Observer, PhaseStarted, Warned
from cictl.files import write_atomic
from cictl.models import hub_errors
from cictl.models.hub_listing import File, NoAnswer, is_commit, lacking, listing
from cictl.models.hub_request import Request
from cictl.models.hub_transfer import Meter, fetch_file, part_of, to_come
from cictl.sizes import size_in_words

if TYPE_CHECKING:
    from filelock import FileLock

MAIN = "main"
_SECONDS_FOR_A_LOOK = 3.0  # a look whether a branch has moved must not hold anybody up
_SECONDS_BETWEEN_LOOKS = 1.0  # at how far another process's download is
ROOM_TO_SPARE = 1 << 28  # bytes that a download leaves free


def snapshot_on_disk(request: Request) -> Path | None:
    """The folder of the commit that ``request`` means as far as this machine knows, if all its files are there."""
    storage = _storage(request)
    commit = request.revision
    if not is_commit(commit):
        try:
            commit = (storage / "refs" / request.revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
        if not is_commit(commit):
            return None
    folder = storage / "snapshots" / commit
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return folder if not lacking(request, names) else None


def fetch(request: Request, observe: Observer, accept: Callable[[Path], None] = lambda folder: None) -> Path:
    """The folder of the commit that ``request`` means as of now, downloaded as far as need be.

    A commit that is all on the disk is not asked for. If the hub says no or nothing, what an earlier run fetched of the
    same branch is used, and a warning says so.

    Args:
        accept: looks at the folder when its small files are there, and raises if the weights need not come.

    Raises:
        ModelAccessError: the hub cannot be reached, refuses, or has not the files, or ``accept``.
        ResourceError: there is no room for them.
    """
    found = snapshot_on_disk(request)
    if found and is_commit(request.revision):
        return found
    if switched_off():
        if found:
            return found
        raise hub_errors.offline(request)
    try:
        with hub_errors.library_warnings(observe), hub_errors.disk_errors():
            return _fetch(request, observe, accept)
    except CictlError as error:
        if not found or not isinstance(error, NoAnswer):
            raise
        observe(Warned(f"{error.message}; going on with commit {found.name}, which {request.revision} was before"))
        return found


def switched_off() -> bool:
    """Whether nothing may be asked of the hub (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def to_download(request: Request, observe: Observer) -> int:
    """How many bytes :func:`fetch` would ask for now. Asks the hub what there is, and fetches nothing.

    Raises:
        ModelAccessError: as :func:`fetch`.
    """
    if switched_off():
        raise hub_errors.offline(request)
    observe(PhaseStarted(f"asking {hub_errors.hub_name()} for the size of {request.id}"))
    with hub_errors.library_warnings(observe):
        commit, files = listing(request)
    return to_come(_storage(request) / "blobs", _absent(request, commit, files))


def branch_head(request: Request) -> str | None:
    """The commit that a branch is at now, or None if the hub does not say so quickly."""
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(request.id, revision=request.revision, timeout=_SECONDS_FOR_A_LOOK).sha
    except Exception:  # of any kind: nothing depends on the answer
        return None


def _fetch(request: Request, observe: Observer, accept: Callable[[Path], None]) -> Path:
    storage = _storage(request)
    observe(PhaseStarted(f"asking {hub_errors.hub_name()} for {request.id}"))
    commit, files = listing(request)
    folder = storage / "snapshots" / commit
    if all((folder / file.name).is_file() for file in files):
        with suppress(OSError):  # of a cache that others keep, and this user may only read
            _remember(request, commit)
        return folder
    with _alone(request, commit, files, observe):
        _fetch_files(request, commit, files, observe, accept)
        _remember(request, commit)  # last: until then, the branch is what was whole before
    return folder


@contextmanager
def _alone(request: Request, commit: str, files: Sequence[File], observe: Observer) -> Iterator[None]:
    """Be the only process that fetches this model: two downloads into one file would spoil it."""
    from filelock import FileLock, Timeout

    storage = _storage(request)
    path = storage.parent / ".locks" / storage.name / "cictl.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        observe(Note(f"{request.id}: another process is fetching it; waiting for that"))
        _wait(lock, request, commit, files, observe)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, request: Request, commit: str, files: Sequence[File], observe: Observer) -> None:
    """Wait until the other one is done, and tell how far it is: whoever is told may end the waiting."""
    from filelock import Timeout

    total = sum(file.size for file in files)
    while True:
        try:
            lock.acquire(timeout=_SECONDS_BETWEEN_LOOKS)
            break
        except Timeout:
            absent = _absent(request, commit, files)
            done = min(total - 1, total - to_come(_storage(request) / "blobs", absent))  # the end is told once
            observe(DownloadProgress(request.id, min(absent, key=_weights_last).name if absent else "", done, total))
    if not _absent(request, commit, files):
        observe(DownloadProgress(request.id, "", total, total))


def _absent(request: Request, commit: str, files: Sequence[File]) -> list[File]:
    """Those whose bytes are still to come."""
    blobs, folder = _storage(request) / "blobs", _storage(request) / "snapshots" / commit
    return [file for file in files if not ((folder / file.name).is_file() or (blobs / file.hash).is_file())]


def _remember(request: Request, commit: str) -> None:
    """Note which commit a branch is at."""
    ref = _storage(request) / "refs" / request.revision
    if is_commit(request.revision) or (ref.is_file() and ref.read_bytes().strip() == commit.encode()):
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(ref, commit.encode())


def _fetch_files(request: Request, commit: str, files: Sequence[File], observe: Observer, accept: Callable[[Path], None]) -> None:
    """Fetch what is missing, small files and those that are no weights first.

    Raises:
        ModelAccessError, ResourceError: as :func:`fetch` says.
    """
    from huggingface_hub import hf_hub_download

    blobs, folder = _storage(request) / "blobs", _storage(request) / "snapshots" / commit
    blobs.mkdir(parents=True, exist_ok=True)
    missing = [file for file in sorted(files, key=_weights_last) if not (folder / file.name).is_file()]
    absent = _absent(request, commit, missing)
    total = sum(file.size for file in files)
    kept = total - to_come(blobs, absent)
    if absent:
        _require_room(request, total - kept, blobs)
        began = any(part_of(blobs, file).is_file() for file in absent) or len(absent) < len(files)
        if began:
            whole = len(files) - len(absent)
            observe(
                Note(f"{request.id}: going on with what is there, {whole} of {len(files)} files, {kept:,} of {total:,} bytes")
            )
    meter = Meter(request.id, total, kept, observe)
    accepted = False
    for file in missing:
        if _is_weights(file) and not accepted:
            accept(folder)
            accepted = True
        if file in absent:
            meter.begin(file.name)
            fetch_file(request, commit, file, blobs, meter)
        with hub_errors.explaining(request):
            hf_hub_download(request.id, file.name, revision=commit)  # finds the bytes in the cache, and gives them their name
    if absent:
        meter.end()


def cache_folder() -> Path:
    """Where models from the hub lie; it may still have to be made."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def _storage(request: Request) -> Path:
    return cache_folder() / f"models--{request.id.replace('/', '--')}"


def _is_weights(file: File) -> bool:
    return file.name.endswith(".safetensors")


def _weights_last(file: File) -> tuple[bool, int]:
    return _is_weights(file), file.size


def _require_room(request: Request, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + ROOM_TO_SPARE:
        raise ResourceError(
            f"{request.id} needs {size_in_words(needed + ROOM_TO_SPARE)}, {size_in_words(ROOM_TO_SPARE)} of it to stay free, and "
            f"the disk of {folder} has {size_in_words(free)}",
            "make room there, or set HF_HOME to a folder on another disk; then type the same command again",
            slug="download-without-room",
        )

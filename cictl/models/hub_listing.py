"""What a repository on the hub holds: which commit a branch is at, and its files with their sizes and hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from cictl.errors import CictlError, ModelAccessError
from cictl.models import hub_errors
from cictl.models.hub_request import Request

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_OPTIONAL = ("safety_checker/", "feature_extractor/")  # not every model ships a checker


def is_commit(text: str | None) -> bool:
    """Whether ``text`` names weights for good, as a branch does not."""
    return bool(text and _COMMIT.fullmatch(text))


@dataclass(frozen=True)
class File:
    """A file of a repository; ``hash`` is its SHA-256, or git's SHA-1 for small ones, and its name in the cache."""

    name: str
    size: int
    hash: str


class NoAnswer(ModelAccessError):
    """The hub did not say which commit a branch is at."""


def listing(request: Request) -> tuple[str, list[File]]:
    """The commit, and the files that are wanted of it with their sizes; one request, before any byte is fetched.

    Raises:
        ModelAccessError: no answer, or a repository without the files.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RevisionNotFoundError

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    try:
        info = HfApi().model_info(request.id, revision=request.revision, files_metadata=True, timeout=timeout)
    except RevisionNotFoundError as error:
        raise hub_errors.explained(error, request) from None
    except CictlError:
        raise
    except Exception as error:
        problem = hub_errors.explained(error, request)
        raise NoAnswer(problem.message.splitlines(), problem.hint, slug=problem.slug) from None
    if not is_commit(info.sha):
        raise ModelAccessError(
            f"{hub_errors.hub_name()} names no commit of {request.id}",
            "unset HF_ENDPOINT, or correct it",
            slug="hub-without-commit",
        )
    siblings = list(info.siblings or ())
    names = {sibling.rfilename for sibling in siblings}
    if missing := lacking(request, names):
        raise hub_errors.without_files(request, missing, names)
    return str(info.sha), [_file(sibling) for sibling in siblings if _wanted(request, sibling.rfilename)]


def _file(sibling: Any) -> File:
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if sibling.size is None or not _HASH.fullmatch(digest or ""):  # it becomes a file's name
        raise ModelAccessError(
            f"{hub_errors.hub_name()} does not say how large {sibling.rfilename} is, or what its hash is",
            "unset HF_ENDPOINT, or set it to a hub that does",
            slug="hub-without-hash",
        )
    return File(sibling.rfilename, sibling.size, digest)


def _wanted(request: Request, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in request.files)


def lacking(request: Request, names: set[str]) -> list[str]:
    """The files of ``request`` that are not among ``names``; of patterns in a folder one must fit something."""
    needed = [file for file in request.files if not file.startswith(_OPTIONAL)]
    lacking = [file for file in needed if "*" not in file and file not in names]
    folders: dict[str, bool] = {}
    for pattern in request.files:
        if "*" in pattern:
            folder = pattern.rpartition("/")[0]
            folders[folder] = folders.get(folder, False) or any(fnmatchcase(name, pattern) for name in names)
    return lacking + [f"{folder}/*" for folder, there in folders.items() if not there]

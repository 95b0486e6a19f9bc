"""What can go wrong with the hub, each kind in its own words with its own way out. Never shows the access token."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from cictl.errors import CictlError, ModelAccessError, ResourceError
from cictl.events import Observer, Warned
from cictl.files import from_home, is_folder, quoted
from cictl.models.hub_request import Request

_DNS = re.compile(r"name or service not known|name resolution|nodename nor servname|getaddrinfo|no address associated", re.I)
_QUERY = re.compile(r"\?[^\s'\"]+")  # the address of a file on the hub's storage is signed there


def hub_name() -> str:
    """The host that is asked, without a password that its address may hold."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def without_token(text: object) -> str:
    """``text`` without the access token, which an error of the network may quote, or a server send back."""
    from huggingface_hub import get_token

    token = get_token()
    shown = _QUERY.sub("", str(text))
    if token:
        shown = shown.replace(token, "<token>")
    return shown


def offline(request: Request) -> ModelAccessError:
    """The hub is switched off, and the model is not (wholly) on the disk."""
    return ModelAccessError(
        f"{request.id} ({request.key}) is not on this machine, or not all of it, and the hub is switched off (HF_HUB_OFFLINE)",
        f"unset HF_HUB_OFFLINE, then type the same command again; {request.without_it}",
        slug="hub-switched-off",
    )


def explained(error: Exception, request: Request) -> ModelAccessError:
    """``error``, of the hub's library or of the network, in words."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the library's wrapping of any of the others
    if isinstance(error, HfHubHTTPError):
        return _refused(error, request)
    if isinstance(error, HFValidationError):
        return ModelAccessError(
            f"{request.id} is no id that the hub could have",
            f"set {request.key} in ci.yaml to an id of the form owner/name",
            slug="model-id-impossible",
        )
    return _unreachable(error, request)


@contextmanager
def explaining(request: Request) -> Iterator[None]:
    """What the hub's library raises in here becomes a ModelAccessError.

    The network's own errors have no class that the library promises, so that all are caught but ours.
    """
    try:
        yield
    except CictlError:
        raise
    except Exception as error:
        raise explained(error, request) from None  # the original may quote the token


@contextmanager
def disk_errors() -> Iterator[None]:
    """What the file system says becomes a ResourceError."""
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{error.filename or 'the cache of the hub'} cannot be written: {error.strerror or error}",
            "make room there, or set HF_HOME to a folder that you may write to; then type the same command again: it goes on",
            slug="download-not-written",
        ) from None


def cut_off(error: Exception, request: Request, file: str, done: int, size: int) -> ModelAccessError:
    """The connection broke within ``file``, of which ``done`` bytes are kept."""
    return ModelAccessError(
        f"the connection to {hub_name()} was cut while fetching {file} of {request.id}, after {done:,} of {size:,} bytes "
        f"({without_token(error) or type(error).__name__})",
        "type the same command again: it goes on where this one stopped",
        slug="download-cut-off",
    )


def damaged(request: Request, file: str) -> ModelAccessError:
    """What arrived is not what the hub says it holds."""
    return ModelAccessError(
        f"{file} of {request.id} arrived damaged: its hash is not the one that {hub_name()} names; it was deleted",
        "type the same command again: it fetches that file anew. If it happens twice, a proxy or a mirror changes files",
        slug="download-damaged",
    )


def without_files(request: Request, missing: list[str], there: set[str]) -> ModelAccessError:
    """A repository or a folder lacks files that are read: it has only pickles, only half precision, or is something else."""
    shown = ", ".join(missing)
    stems = {name.rsplit(".", 1)[0] for name in missing if name.endswith(".safetensors")}
    folders = {stem.rpartition("/")[0] for stem in stems}
    pickles = sorted(
        name for name in there if name.endswith((".bin", ".ckpt", ".pt", ".pth")) and name.rpartition("/")[0] in folders
    )
    variants = sorted(name for name in there if name.endswith(".safetensors") and name.split(".")[0] in stems)
    local = is_folder(from_home(request.id))
    says = f"{request.id} has no {shown}" if local else f"{request.id} at {request.revision} has no {shown}"
    if variants:
        return ModelAccessError(
            f"{says}: it has other variants ({', '.join(variants)}), which this version does not read",
            f"set {request.key} in ci.yaml to a model that has the files without a suffix such as .fp16"
            + _or_converted(request, f", variant={json.dumps(variants[0].split('.')[1], ensure_ascii=False)}"),
            slug="model-only-as-variant",
        )
    if pickles:
        convert = "https://huggingface.co/spaces/safetensors/convert"
        by_the_hub = f"; or let the hub convert it at {convert} and set {request.revision_key} to its refs/pr/N"
        return ModelAccessError(
            f"{says}: it has pickles ({', '.join(pickles)}), which can run code when they are read: only safetensors is read",
            f"look for a copy of the model in safetensors and set {request.key} in ci.yaml to it"
            + (_or_converted(request, trust=True) if local else by_the_hub),
            slug="model-only-as-pickle",
        )
    return ModelAccessError(
        f"{says}: so it is not {request.kind}", f"set {request.key} in ci.yaml to {request.kind}", slug="model-without-files"
    )


def _or_converted(request: Request, options: str = "", *, trust: bool = False) -> str:
    """The way to a copy of a base model in the form that is read; nothing for other models."""
    if request.key != "model.id":
        return ""
    source = str(from_home(request.id)) if request.id.startswith("~") else request.id  # a program does not know what ~ is
    program = (
        "from diffusers import StableDiffusionPipeline as P; "
        f'P.from_pretrained({json.dumps(source, ensure_ascii=False)}{options}).save_pretrained("FOLDER")'
    )
    trusted = ", if you trust it," if trust else ""
    return f"; or{trusted} make a folder of it and set {request.key} to that:\n`python -c {quoted(program)}`"


def _refused(error: Exception, request: Request) -> ModelAccessError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = int(error.response.status_code)  # type: ignore[attr-defined]
    login = "hf auth login" if get_token() is None else "hf auth whoami (the token in use may be another account's)"
    if isinstance(error, GatedRepoError):  # a kind of RepositoryNotFoundError, so it comes first
        return ModelAccessError(
            f"{request.id} is gated: its owner asks you to accept terms first",
            f"accept them at https://huggingface.co/{request.id}, then: {login}",
            slug="model-gated",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelAccessError(
            f"{request.id} has no revision {request.revision}",
            f"correct {request.revision_key} in ci.yaml (null is the main branch); if this workspace was trained with a commit "
            "that its owner has deleted: cictl invert --restart",
            slug="model-revision-missing",
        )
    if isinstance(error, DisabledRepoError):
        return ModelAccessError(
            f"the hub has disabled {request.id}", f"set {request.key} in ci.yaml to another model", slug="model-disabled"
        )
    return _refused_by_status(status, error, request, login, absent=isinstance(error, RepositoryNotFoundError) or status == 404)


def _refused_by_status(status: int, error: Exception, request: Request, login: str, *, absent: bool) -> ModelAccessError:
    if absent:
        return ModelAccessError(
            f"{request.id} does not exist on {hub_name()}, or is private and you may not see it ({status})",
            f"check the spelling of {request.key} in ci.yaml; for a private model: {login}",
            slug="model-absent-or-private",
        )
    if status == 401:
        return ModelAccessError(
            f"{hub_name()} does not accept your access token for {request.id} (401)",
            "hf auth login with a new one, or unset HF_TOKEN if it is set: public models need none",
            slug="token-not-accepted",
        )
    if status == 403:
        return ModelAccessError(
            f"{hub_name()} forbids access to {request.id} (403{_its_words(error)})",
            f"look at https://huggingface.co/{request.id} for what it asks for, then: {login}",
            slug="model-forbidden",
        )
    if status == 429:
        wait = _wait(error.response.headers)  # type: ignore[attr-defined]
        return ModelAccessError(
            f"{hub_name()} has had too many requests from you or your network, {request.id} among them (429)",
            f"type the same command again {f'in {wait}' if wait else 'in a few minutes'}"
            + ("; logged in one may ask more often: hf auth login" if login == "hf auth login" else ""),
            slug="hub-rate-limited",
        )
    if status >= 500:
        return ModelAccessError(
            f"{hub_name()} has a problem of its own ({status}) and does not give out {request.id}",
            "type the same command again in a few minutes; https://status.huggingface.co says more",
            slug="hub-broken",
        )
    return ModelAccessError(
        f"{hub_name()} refused {request.id} ({status}{_its_words(error)})",
        "type the same command again in a few minutes",
        slug="hub-refused",
    )


def _unreachable(error: Exception, request: Request) -> ModelAccessError:
    from huggingface_hub.errors import FileMetadataError

    if isinstance(error, UnicodeEncodeError):
        return ModelAccessError(
            f"your access token holds a character that none has, so that {hub_name()} was not asked for {request.id}",
            "hf auth login with a token copied anew, or correct HF_TOKEN",
            slug="token-malformed",
        )
    text = _first_line(error)
    if "Timeout" in type(error).__name__:
        why = "it did not answer in time"
    elif _DNS.search(text):
        why = "its name is not known to the network (DNS)"
    elif "refused" in text.lower():
        why = "it refuses connections"
    elif "certificate verify failed" in text.lower():
        why = f"its certificate is not accepted ({text})"
    elif isinstance(error, (json.JSONDecodeError, FileMetadataError)):
        why = "what answers there is no hub, but perhaps a page of the network's own, to log in"
    else:
        why = f"{type(error).__name__}: {text}"
    return ModelAccessError(
        f"{request.id} ({request.key}) is not on this machine, or not all of it, and the hub at {hub_name()} cannot be reached: "
        f"{why}",
        "check the network (and HF_ENDPOINT and HTTPS_PROXY if they are set), then type the same command again; "
        f"{request.without_it}",
        slug="hub-unreachable",
    )


def _wait(headers: object) -> str:
    """What Retry-After says: seconds, or a date."""
    value = str(headers.get("Retry-After", "")).strip()  # type: ignore[attr-defined]
    if not value.isdigit():
        return ""
    seconds = int(value)
    return f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"


def _its_words(error: Exception) -> str:
    """What the hub gives as its reason, such as that a token lacks a permission."""
    reason = " ".join(without_token(getattr(error, "server_message", None) or "").split())
    return f": {reason}" if reason else ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in without_token(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class _Tell(logging.Handler):
    def __init__(self, observe: Observer) -> None:
        super().__init__(logging.WARNING)
        self._observe = observe

    def emit(self, record: logging.LogRecord) -> None:
        self._observe(Warned(" ".join(without_token(record.getMessage()).split())))


@contextmanager
def library_warnings(observe: Observer) -> Iterator[None]:
    """What the hub's library would write straight to stderr, through a live panel, is told as an event."""
    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [_Tell(observe)]
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate

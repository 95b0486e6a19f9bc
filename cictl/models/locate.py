"""Where a model's files lie: embedded, in a folder, or on the hub; and what tells two of them apart.

Imports neither torch nor diffusers, so that `cictl status` can use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from cictl.errors import ModelAccessError
from cictl.events import Observer, ignore
from cictl.files import from_home, is_file, is_folder, sampled_digest, sha256_bytes
from cictl.models import hub, hub_errors
from cictl.models.base_folder import require_sd1_configs, require_whole_weights
from cictl.models.headers import PICKLES
from cictl.models.hub_request import Request
from cictl.models.single_file import SD1_CONFIGS, require_sd1

EMBEDDED = Path(__file__).parent / "weights"

CHECKER_FILES = ("safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json")

# Safetensors only, and of those only what is used: no pickles, no second precision.
_BASE_FILES = (
    "model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt",
    "text_encoder/config.json", "text_encoder/model.safetensors",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", *CHECKER_FILES,
)  # fmt: skip
_SHOWN = 3  # of the models in a folder

MetricNetwork = Literal["dinov2", "clip"]
_READER_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")  # of CLIP, and of DINOv2


@dataclass(frozen=True)
class Located:
    """A model on this machine.

    Attributes:
        id: as ci.yaml names it.
        folder: where its files lie; of a single file, the folder of configs that says how to read it.
        identity: a commit of the hub, or a digest of the files; equal for equal weights.
        file: the checkpoint, if it is a single file.
    """

    id: str
    folder: Path
    identity: str
    file: Path | None = None


def locate_base(model_id: str, revision: str | None = None, *, offline: bool = False, observe: Observer = ignore) -> Located:
    """A base model: a folder in diffusers layout, downloaded if need be and not ``offline``, or a single file.

    Args:
        revision: a commit, branch or tag on the hub; None is its main branch.
        offline: look on this machine only.
        observe: is told how a download goes.

    Raises:
        ModelAccessError: it cannot be found or reached, is not whole, or is no Stable Diffusion 1.x.
        ResourceError: there is no room for it.
    """
    file = from_home(model_id)
    if model_id != "toybox" and is_file(file):
        require_sd1(file)
        return Located(model_id, SD1_CONFIGS, sampled_digest(file), file.resolve())
    request = base_request(model_id, revision)
    accept = partial(require_sd1_configs, request)
    located = _locate(request, embedded="", offline=offline, observe=observe, accept=accept)
    if not (located.folder / "unet" / "config.json").is_file():
        raise ModelAccessError(
            f"{model_id} is not a model in diffusers layout: {located.folder} holds no unet/config.json",
            _model_within(located.folder)
            or "give a folder that has unet/, vae/, text_encoder/, tokenizer/ and scheduler/, or an id such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            slug="model-without-layout",
        )
    accept(located.folder)
    require_whole_weights(request, located.folder)
    return located


def locate_clip(model_id: str, revision: str | None = None, *, offline: bool = False, observe: Observer = ignore) -> Located:
    """The folder of a whole CLIP model (both towers and both projections); see :func:`locate_base`.

    Raises:
        ModelAccessError: it cannot be found or reached.
        ResourceError: there is no room for it.
    """
    return _locate(clip_request(model_id, revision), embedded="clip", offline=offline, observe=observe)


def locate_metric(
    model_id: str, revision: str | None, which: MetricNetwork, observe: Observer = ignore, *, offline: bool = False
) -> Located:
    """The folder of a model that `cictl evaluate` measures with; see :func:`locate_base`.

    Raises:
        ModelAccessError: it cannot be found or reached.
        ResourceError: there is no room for it.
    """
    if which == "dinov2" and model_id == "toybox":
        raise ModelAccessError(
            "the toybox has no DINOv2",
            "set evaluate.dinov2 to facebook/dinov2-base, or to null to go without it",
            slug="toybox-without-dinov2",
        )
    return _locate(metric_request(model_id, revision, which), embedded="clip", offline=offline, observe=observe)


def tokenizer_folder(clip: Located) -> Path:
    """Where the tokenizer of a CLIP lies: in its folder, or else CLIP's own, which ships here and most CLIPs have."""
    if any((clip.folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return clip.folder
    return (EMBEDDED / "toybox" if clip.id == "toybox" else SD1_CONFIGS) / "tokenizer"


def base_request(model_id: str, revision: str | None) -> Request:
    """What is asked of the hub for a base model."""
    return Request(model_id, revision or hub.MAIN, _BASE_FILES, "model.id", "model.revision")


def clip_request(model_id: str, revision: str | None) -> Request:
    """What is asked of the hub for a CLIP model."""
    return Request(model_id, revision or hub.MAIN, _READER_FILES, "model.clip", "model.clip_revision")


def metric_request(model_id: str, revision: str | None, which: MetricNetwork) -> Request:
    """What is asked of the hub for a model that `cictl evaluate` measures with."""
    key = f"evaluate.{which}"
    return Request(model_id, revision or hub.MAIN, _READER_FILES, key, f"{key}_revision")


def _locate(
    request: Request,
    *,
    embedded: str,
    offline: bool,
    observe: Observer,
    accept: Callable[[Path], None] = lambda folder: None,
) -> Located:
    model_id = request.id
    folder = EMBEDDED / model_id / embedded
    if model_id == "toybox":
        if not folder.is_dir():
            raise ModelAccessError(
                "the weights of the toybox are not in this installation", "install cictl again", slug="toybox-missing"
            )
        return Located(model_id, folder, _digest(folder))
    folder = from_home(model_id)
    if is_folder(folder):
        return Located(model_id, folder.resolve(), _digest(folder))
    if is_file(folder):
        raise ModelAccessError(
            f"{model_id} is a single file, where {request.kind} is wanted",
            f"set {request.key} in ci.yaml to its folder, or to an id on the hub such as {request.example}",
            slug="model-is-a-file",
        )
    is_path = folder.is_absolute() or model_id.startswith((".", "~")) or model_id.endswith((".safetensors", *PICKLES))
    if is_path or model_id.count("/") != 1:
        raise ModelAccessError(
            f"{model_id} is neither a folder nor a file here, nor an id of the form owner/name",
            f"set {request.key} in ci.yaml to {request.choices}",
            slug="model-not-found",
        )
    snapshot = hub.snapshot_on_disk(request) if offline else hub.fetch(request, observe, accept)
    if snapshot is None:
        raise hub_errors.offline(request)
    return Located(model_id, snapshot, snapshot.name)


def _model_within(folder: Path) -> str:
    """What to give in place of a folder that is none of a model, but holds one; nothing if it holds none."""
    models = [path.parent.parent for path in folder.glob("snapshots/*/unet/config.json")]  # a folder of the hub's cache
    models += [path.parent.parent for path in folder.glob("*/unet/config.json")]
    models += folder.glob("*.safetensors")
    return "\n".join(f"set model.id in ci.yaml to what lies in it: {model}" for model in sorted(models)[:_SHOWN])


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".txt") and path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sampled_digest(path)}" for path in files]
    return sha256_bytes("\n".join(lines).encode())

"""Where a model's files lie: embedded, in a folder, or on the hub; and what tells two of them apart.

Imports neither torch nor diffusers, so that `cictl status` can use it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cictl.errors import ModelAccessError
from cictl.files import sampled_digest, sha256_bytes
from cictl.models.single_file import PICKLES, SD1_CONFIGS, require_sd1

EMBEDDED = Path(__file__).parent / "weights"

CHECKER_FILES = ("safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json")

# Safetensors only, and of those only what is used: no pickles, no second precision.
_BASE_FILES = (
    "model_index.json", "scheduler/*.json", "tokenizer/*", "text_encoder/config.json", "text_encoder/model.safetensors",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors", *CHECKER_FILES,
)  # fmt: skip
_CLIP_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


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


def locate_base(model_id: str, revision: str | None = None, *, offline: bool = False) -> Located:
    """A base model: a folder in diffusers layout, downloaded if need be and not ``offline``, or a single file.

    Raises:
        ModelAccessError: it cannot be found or reached.
    """
    file = Path(model_id).expanduser()
    if model_id != "toybox" and file.is_file():
        require_sd1(file)
        return Located(model_id, SD1_CONFIGS, sampled_digest(file), file.resolve())
    located = _locate(model_id, revision, _BASE_FILES, embedded="", offline=offline)
    if not (located.folder / "unet" / "config.json").is_file():
        raise ModelAccessError(
            f"{model_id} is not a model in diffusers layout: {located.folder} holds no unet/config.json",
            "give a folder that has unet/, vae/, text_encoder/, tokenizer/ and scheduler/, or an id such as "
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
        )
    return located


def locate_clip(model_id: str, revision: str | None = None, *, offline: bool = False) -> Located:
    """The folder of a whole CLIP model (both towers and both projections).

    Raises:
        ModelAccessError: it cannot be found or reached.
    """
    return _locate(model_id, revision, _CLIP_FILES, embedded="clip", offline=offline)


def _locate(model_id: str, revision: str | None, files: tuple[str, ...], *, embedded: str, offline: bool) -> Located:
    folder = EMBEDDED / model_id / embedded
    if model_id == "toybox":
        if not folder.is_dir():
            raise ModelAccessError("the weights of the toybox are not in this installation", "install cictl again")
        return Located(model_id, folder, _digest(folder))
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return Located(model_id, folder.resolve(), _digest(folder))
    if folder.is_file():
        raise ModelAccessError(
            f"{model_id} is a single file, where a whole CLIP model is wanted, both towers and both projections",
            "set model.clip in ci.yaml to its folder, or to openai/clip-vit-large-patch14",
        )
    is_path = folder.is_absolute() or model_id.startswith((".", "~")) or model_id.endswith((".safetensors", *PICKLES))
    if is_path or model_id.count("/") != 1:
        raise ModelAccessError(
            f"{model_id} is neither a folder here nor an id of the form owner/name, nor a file here",
            "set model.id in ci.yaml to a folder in diffusers layout, a .safetensors checkpoint, an id on the hub, or toybox",
        )
    return _download(model_id, revision, files, offline=offline)


def _download(model_id: str, revision: str | None, files: tuple[str, ...], *, offline: bool) -> Located:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = offline or os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "True", "ON", "on")
    page = f"https://huggingface.co/{model_id}"
    try:
        folder = snapshot_download(model_id, revision=revision, allow_patterns=list(files), local_files_only=offline)
    except GatedRepoError:  # a kind of RepositoryNotFoundError, so it comes first
        raise ModelAccessError(
            f"{model_id} asks you to accept its terms first", f"accept them at {page}, then: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise ModelAccessError(
            f"{model_id} does not exist on the hub, or is private and you are not logged in",
            "check the spelling of model.id in ci.yaml; for a private model: hf auth login",
        ) from None
    except RevisionNotFoundError:
        raise ModelAccessError(
            f"{model_id} has no revision {revision}", "correct model.revision in ci.yaml; null is the newest"
        ) from None
    except LocalEntryNotFoundError:
        why = "the hub is switched off (HF_HUB_OFFLINE)" if offline else "the hub cannot be reached"
        raise ModelAccessError(
            f"{model_id} is not on this machine, and {why}",
            "connect to the network once, or set model.id to a folder in diffusers layout, or try --model toybox",
        ) from None
    except HfHubHTTPError as error:
        raise ModelAccessError(f"the hub refused {model_id}: {error}", "try again in a few minutes") from None
    except Exception as error:  # the network's own errors have no common class
        raise ModelAccessError(
            f"{model_id} cannot be downloaded: {type(error).__name__}: {error}",
            "check the network, or set model.id to a folder in diffusers layout, or try --model toybox",
        ) from None
    return Located(model_id, Path(folder), Path(folder).name)


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".txt") and path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {sampled_digest(path)}" for path in files]
    return sha256_bytes("\n".join(lines).encode())

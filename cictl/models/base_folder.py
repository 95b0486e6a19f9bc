"""A base model in diffusers layout: what it is, and whether it is whole, from its configs and the headers of its weights.

All of it is known before a weight is read, and what it is before the large files are downloaded. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from cictl.errors import ModelAccessError
from cictl.files import from_home, is_folder
from cictl.models import hub_errors
from cictl.models.headers import read_header
from cictl.models.hub_request import Request

T = TypeVar("T")

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
_CONFIGS = {**{part: f"{part}/config.json" for part in WEIGHTS}, "scheduler": "scheduler/scheduler_config.json"}
_TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
_PREDICTION_TYPES = ("epsilon", "v_prediction")  # noise and velocity, as schedulers of diffusers call them


def require_sd1_configs(request: Request, folder: Path) -> None:
    """Refuse what its small files show to be no Stable Diffusion 1.x.

    Raises:
        ModelAccessError: one is missing, is no JSON, or is of another model, or they do not fit together.
    """
    missing = [name for name in _CONFIGS.values() if not (folder / name).is_file()]
    if not (folder / "tokenizer" / "tokenizer.json").is_file():  # without it and these the library makes one that knows no word
        missing += [name for name in _TOKENIZER if not (folder / name).is_file()]
    if missing:
        raise hub_errors.without_files(request, missing, _names(folder))
    configs = {part: _read(read_config, folder / name, request) for part, name in _CONFIGS.items()}
    if why := _why_not_sd1(**configs):
        raise ModelAccessError(
            f"{request.id} is no Stable Diffusion 1.x: {why}",
            f"set {request.key} in ci.yaml to stable-diffusion-v1-5/stable-diffusion-v1-5, or to a model made from it",
            slug="model-not-sd1",
        )


def require_whole_weights(request: Request, folder: Path) -> None:
    """Refuse a folder whose weights are not all there, as safetensors, each as long as its header says.

    Raises:
        ModelAccessError: they are not; nothing but headers was read.
    """
    files = {part: weight_files(folder, part) for part in WEIGHTS}
    missing = [path.relative_to(folder).as_posix() for paths in files.values() for path in paths if not path.is_file()]
    if missing:
        raise hub_errors.without_files(request, missing, _names(folder))
    for path in chain.from_iterable(files.values()):
        _read(read_header, path, request)


def weight_files(folder: Path, part: str) -> list[Path]:
    """The files that hold the weights of ``part``: one, or those that an index names. It need not be there.

    Raises:
        ModelAccessError: the index cannot be read.
    """
    whole = folder / WEIGHTS[part]
    index = whole.with_name(f"{whole.name}.index.json")
    # Of both, transformers takes the file and diffusers the index.
    if not index.is_file() or (part == "text_encoder" and whole.is_file()):
        return [whole]
    places = read_config(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    return [whole.with_name(str(name)) for name in sorted(names, key=str)] or [whole]


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelAccessError: it holds none.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds something else")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelAccessError(
            f"{path} cannot be read as a JSON object ({error})", "download it again", slug="model-config-unreadable"
        ) from None
    return values


def _read(read: Callable[[Path], T], path: Path, request: Request) -> T:
    """What ``read`` finds in a file; of one in the hub's cache that it refuses, how it comes anew."""
    path = path.resolve()  # in the cache that is the file itself, not a link to it
    try:
        return read(path)
    except ModelAccessError as error:
        if not is_folder(from_home(request.id)):
            error.hint = f"delete {path}, then type the same command again: it is downloaded anew"
        raise


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for part in WEIGHTS for path in (folder / part).glob("*")}


def _why_not_sd1(
    unet: Mapping[str, Any], text_encoder: Mapping[str, Any], vae: Mapping[str, Any], scheduler: Mapping[str, Any]
) -> str:
    """What the parts' configs say that Stable Diffusion 1.x has otherwise; nothing if they fit together.

    What a config does not say has the value that the libraries give it.
    """
    width, given = unet.get("cross_attention_dim", 1280), text_encoder.get("hidden_size", 512)
    channels, latents = unet.get("in_channels", 4), vae.get("latent_channels", 4)
    prediction = scheduler.get("prediction_type", _PREDICTION_TYPES[0])
    if unet.get("addition_embed_type") == "text_time":
        return "it is Stable Diffusion XL"
    if width == given == 1024:
        return "it is Stable Diffusion 2"
    if width != given:
        return f"its UNet reads {width} numbers a token, its text encoder gives {given}"
    if channels != latents:
        kind = "an inpainting or an image-editing model"
        return f"it is {kind}, whose UNet takes more than latents, {channels} channels of which the VAE gives {latents}"
    if prediction not in _PREDICTION_TYPES:
        return f"its UNet predicts {prediction!r}, not {' or '.join(_PREDICTION_TYPES)}"
    return ""

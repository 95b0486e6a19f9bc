"""A checkpoint in one file, in the layout of the LDM code: what it is, from its header; and its parts.

The names are translated by diffusers' own converters. What kind of file it is, and whether it is whole, is
decided before any weight is read. Imports neither torch nor diffusers before it loads something.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cictl.errors import ModelAccessError, lacking
from cictl.models.headers import AGAIN, Header, read_header
from cictl.models.ldm_names import TEXT as _TEXT
from cictl.models.ldm_names import UNET as _UNET
from cictl.models.ldm_names import VAE as _VAE

if TYPE_CHECKING:
    from torch import Tensor

SD1_CONFIGS = Path(__file__).parent / "configs" / "sd1"

_PREFIXES = {"unet": _UNET, "text_encoder": _TEXT, "vae": _VAE}
_TITLES = {"unet": "UNet", "text_encoder": "text encoder", "vae": "VAE"}
_TAKE = (
    "set model.id in ci.yaml to a whole checkpoint of Stable Diffusion 1.x, as .safetensors or as a folder in diffusers layout"
)
_VELOCITY = "a model with v-prediction, which its weights do not say"
_CONVERT_VELOCITY = (
    "make a folder of it:\n"
    '`python -c \'from diffusers import StableDiffusionPipeline as P; P.from_single_file("FILE").save_pretrained("FOLDER")\'`\n'
    "then set prediction_type to v_prediction in FOLDER/scheduler/scheduler_config.json, and model.id in ci.yaml to FOLDER"
)


def require_sd1(path: Path) -> None:
    """Refuse, from its header alone, a file that is no checkpoint of Stable Diffusion 1.x in LDM layout.

    Raises:
        ModelAccessError: saying what it is instead.
    """
    header = read_header(path)
    kind = next((what for what, applies in _OTHERS if applies(header)), "")
    if kind == _VELOCITY or (not kind and _configured_for_velocity(path.with_suffix(".yaml"))):
        raise ModelAccessError(f"{path} is {_VELOCITY}", _CONVERT_VELOCITY, slug="model-file-of-velocity")
    if kind:
        raise ModelAccessError(f"{path} is {kind}", _TAKE, slug="model-file-is-another-kind")
    lacking = [_TITLES[part] for part, prefix in _PREFIXES.items() if not any(name.startswith(prefix) for name in header.shapes)]
    if len(lacking) == len(_PREFIXES):
        raise ModelAccessError(
            f"{path} is no checkpoint in LDM layout: nothing in it is named {_UNET}*", _TAKE, slug="model-file-not-ldm"
        )
    if lacking:
        raise ModelAccessError(
            f"{path} is only a part of a checkpoint: it has no {' and no '.join(lacking)}", _TAKE, slug="model-file-is-a-part"
        )


def load_parts(file: Path, configs: Path) -> dict[str, Any]:
    """The unet, vae and text_encoder of ``file`` in fp32, which must have every weight that ``configs`` ask for.

    Args:
        configs: a folder with unet/, vae/ and text_encoder/config.json in diffusers layout.

    Raises:
        ModelAccessError: a weight is missing or of another shape; nothing was read then.
    """
    import torch
    from accelerate import init_empty_weights

    models = {}
    with init_empty_weights():  # the parameters alone; buffers, such as the text encoder's positions, are real
        for part in _PREFIXES:
            models[part] = _of_config(part, configs)
    shapes = read_header(file).shapes
    for part, model in models.items():
        names = {name: torch.empty(shape, device="meta") for name, shape in shapes.items() if name.startswith(_PREFIXES[part])}
        _require_fit(file, part, model, translate(part, names, model.config))
    with _opened(file) as stored:
        for part, model in models.items():
            read = {name: stored.get_tensor(name) for name in shapes if name.startswith(_PREFIXES[part])}
            weights = translate(part, read, model.config)
            # Copies: what is read lies in the file itself, which may be replaced while the model is in use.
            wanted = {name: weights[name].to(torch.float32, copy=True).contiguous() for name in model.state_dict()}
            model.load_state_dict(wanted, assign=True)
    return models


def load_unet_weights(file: Path, configs: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """Those weights of the UNet, by their names in diffusers layout, that ``wanted`` says; in fp32.

    Only they are read from the file: the others go through the converter as shapes.

    Raises:
        ModelAccessError: the file cannot be read.
    """
    import torch
    from diffusers import UNet2DConditionModel

    shapes = {name: shape for name, shape in read_header(file).shapes.items() if name.startswith(_UNET)}
    with _opened(file) as stored:
        tensors = {
            name: stored.get_tensor(name) if wanted(name) else torch.empty(shape, device="meta") for name, shape in shapes.items()
        }
    translated = translate("unet", tensors, UNet2DConditionModel.load_config(configs, subfolder="unet"))
    return {name: tensor.float() for name, tensor in translated.items() if wanted(name)}


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            yield stored
    except (OSError, SafetensorError) as error:
        raise ModelAccessError(f"{file} cannot be read ({error})", AGAIN, slug="model-file-damaged") from None


def _of_config(part: str, configs: Path) -> Any:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    if part == "text_encoder":
        return CLIPTextModel(CLIPTextConfig.from_pretrained(configs / part))
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part]
    return kind.from_config(kind.load_config(configs, subfolder=part))


def translate(part: str, tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The weights of one part under the names, and in the shapes, that diffusers and transformers give them."""
    from diffusers.loaders import single_file_utils as ldm

    if part == "unet":
        return ldm.convert_ldm_unet_checkpoint(dict(tensors), config)
    if part == "vae":
        return ldm.convert_ldm_vae_checkpoint(tensors, config)
    # Old checkpoints, and transformers since 5.6, have no text_model. between.
    return {name.removeprefix("text_model."): tensor for name, tensor in ldm.convert_ldm_clip_checkpoint(tensors).items()}


def _require_fit(file: Path, part: str, model: Any, found: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := sorted(expected.keys() - found.keys()):
        raise ModelAccessError(
            f"{file}: the {_TITLES[part]} {lacking(missing)}",
            AGAIN,
            slug="model-file-incomplete",
        )
    for name, shape in expected.items():
        if tuple(found[name].shape) != shape:
            raise ModelAccessError(
                f"{file} is no Stable Diffusion 1.x: {name} of its {_TITLES[part]} is {_shown(found[name].shape)}, "
                f"not {_shown(shape)}",
                _TAKE,
                slug="model-file-of-other-shape",
            )


def _shown(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


# -- what a file can be instead, most telling first ---------------------------------------------------


def _any_named(*parts: str) -> Callable[[Header], bool]:
    return lambda header: any(part in name for name in header.shapes for part in parts)


def _any_begins(*prefixes: str) -> Callable[[Header], bool]:
    return lambda header: any(name.startswith(prefixes) for name in header.shapes)


def _is_embedding(header: Header) -> bool:
    few = 0 < len(header.shapes) <= 2
    return few and all(len(shape) <= 2 and math.prod(shape) < 1_000_000 for shape in header.shapes.values())


def _reads_1024(header: Header) -> bool:
    shapes = header.shapes.items()
    return any(name.startswith(_UNET) and name.endswith(".attn2.to_k.weight") and shape[1:] == (1024,) for name, shape in shapes)


def _takes_more_than_latents(header: Header) -> bool:
    return header.shapes.get(f"{_UNET}input_blocks.0.0.weight", (0, 4))[1:2] not in ((4,), ())


def _predicts_velocity(header: Header) -> bool:
    said = (header.metadata.get(f"modelspec.{key}", "") for key in ("prediction_type", "predict_key"))  # kohya's, ComfyUI's
    return "v_pred" in header.shapes or any(text.startswith("v") for text in said)


def _configured_for_velocity(beside: Path) -> bool:
    """Whether the config of the LDM code beside a file, which A1111 and Forge read too, says so."""
    try:
        return bool(re.search(r"^[ \t]*parameterization:[ \t]*[\"']?v[\"']?[ \t]*$", beside.read_text("utf-8"), re.MULTILINE))
    except (OSError, ValueError):
        return False


def _is_lora(header: Header) -> bool:
    """Whole models have such names too, left over from a LoRA that was merged into them."""
    parts = ("lora_", ".lora", "hada_w", ".lokr_", "oft_blocks")
    return not any(name.startswith(_UNET) for name in header.shapes) and _any_named(*parts)(header)


_OTHERS: tuple[tuple[str, Callable[[Header], bool]], ...] = (
    ("a LoRA, an addition to a model and not a model", _is_lora),
    ("an embedding (textual inversion), an addition to a model and not a model", _is_embedding),
    ("a ControlNet, an addition to a model and not a model", _any_begins("control_model.", "controlnet_")),
    ("Stable Diffusion XL, not 1.x", _any_begins("conditioner.embedders.")),
    ("Stable Diffusion 3 or Flux, not Stable Diffusion 1.x", _any_named("joint_blocks.", "double_blocks.")),
    ("Stable Diffusion 2, not 1.x", _any_begins("cond_stage_model.model.")),
    ("Stable Diffusion 2, not 1.x", _reads_1024),
    ("an inpainting or an image-editing model: its UNet takes more than latents", _takes_more_than_latents),
    (_VELOCITY, _predicts_velocity),
    (
        "one part of a model in diffusers layout; the whole folder is wanted",
        _any_begins("down_blocks.", "encoder.down_blocks.", "text_model.", "embeddings."),
    ),
)

"""Format ``single-file``: the whole tuned model in LDM layout, one file, with the embedding beside it.

``model.diffusion_model.*``, ``first_stage_model.*``, ``cond_stage_model.transformer.text_model.*``. The
programs that read it build their tokenizer themselves, so that its vocabulary stays the base's and the token
comes as an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cictl.exporters.content import (
    Built,
    Exportable,
    Options,
    Place,
    Tensors,
    UnfitError,
    metadata,
    model_spec,
    rounding_note,
    stored,
)
from cictl.exporters.embedding import embedding_file, embedding_path
from cictl.exporters.usage import comfy, load_embedding, opening, snippet
from cictl.models.ldm_names import text_tensors, unet_tensors, vae_tensors
from cictl.models.single_file import translate
from cictl.models.stable_diffusion import StableDiffusion

# What the programs have to be told where the base predicts velocity, since they do not read it in a file of this kind.
_OF_VELOCITY = (
    " behind it a ModelSamplingDiscrete node set to v_prediction,",
    ' with {}.yaml beside it, a config of the LDM code that says parameterization: "v",',
)


def build(source: Exportable, options: Options) -> Built:
    """The checkpoint and the embedding.

    Raises:
        UnfitError: the model has parts that the layout has no place for.
    """
    model = StableDiffusion.load(source.base, torch.device("cpu"), torch.float32)
    unet = {**model.unet.state_dict(), **source.key_values}
    parts = {"unet": unet, "vae": model.vae.state_dict(), "text_encoder": model.text_encoder.state_dict()}
    configs = {"unet": model.unet.config, "vae": model.vae.config, "text_encoder": model.text_encoder.config}
    tensors = ldm_tensors(parts, configs)
    path = f"checkpoints/{source.name}.safetensors"
    velocity = model.scheduler_config["prediction_type"] == "v_prediction"

    def usage(place: Place) -> dict[str, str]:
        opened = opening("from_single_file", place.file(path), f"config={place.configs}")
        load = load_embedding(place, embedding_path(source.name), source.name)
        file, (node, beside) = f"{source.name}.safetensors", _OF_VELOCITY if velocity else ("", "")
        return {
            "ComfyUI": f"a Load Checkpoint node with {file},{node} and {comfy(source.name)}",
            "A1111 / Forge": f"choose the checkpoint {file},{beside.format(source.name)} and type: {source.name}",
            "diffusers": snippet(source.name, opened, [load]),
        }

    predicts = "v" if velocity else "epsilon"
    said = {
        **metadata(source, dtype=options.dtype), **model_spec(source),
        "modelspec.prediction_type": predicts, "modelspec.predict_key": predicts,  # the second is ComfyUI's name for it
    }  # fmt: skip
    file = Tensors(stored(tensors, options.dtype), said)
    return Built({path: file, **embedding_file(source)}, usage, rounding_note(source, source.key_values, options.dtype))


def ldm_tensors(parts: Mapping[str, Mapping[str, Tensor]], configs: Mapping[str, Any]) -> dict[str, Tensor]:
    """All parts under their LDM names, which diffusers' own converters must turn back into what they were.

    Args:
        parts: weights of unet, vae and text_encoder in diffusers layout.
        configs: theirs.

    Raises:
        UnfitError: they do not.
    """
    layers = configs["unet"]["layers_per_block"]
    try:
        written = {
            "unet": unet_tensors(parts["unet"], layers),
            "vae": vae_tensors(parts["vae"]),
            "text_encoder": text_tensors(parts["text_encoder"]),
        }
        for part, tensors in written.items():
            back = translate(part, tensors, configs[part])
            for name, tensor in parts[part].items():
                if back[name.removeprefix("text_model.")].shape != tensor.shape:
                    raise ValueError(name)
                if not tensor.is_meta and not torch.equal(back[name.removeprefix("text_model.")], tensor):
                    raise ValueError(name)
    except (KeyError, ValueError, TypeError) as error:
        raise UnfitError(
            f"the base model does not fit the layout of a single file: {error}",
            "cictl export --format pipeline",
            slug="base-not-single-file",
        ) from None
    return {name: tensor for tensors in written.values() for name, tensor in tensors.items()}

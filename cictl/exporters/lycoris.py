"""Format ``lycoris``: the changes of K, V themselves, in the "full" layout of LyCORIS.

``lora_unet_<module>.diff`` = W - W0 [out, in], without any decomposition. diffusers refuses it.
"""

from __future__ import annotations

from torch import Tensor

from cictl.exporters.content import (
    Built,
    Exportable,
    Options,
    Place,
    Tensors,
    changes,
    kohya_name,
    metadata,
    rounding_note,
    stored,
)
from cictl.exporters.embedding import embedding_file
from cictl.exporters.usage import comfy


def build(source: Exportable, options: Options) -> Built:
    """The changes and the embedding."""
    file = Tensors(
        stored(diffs(source), options.dtype),
        {
            **metadata(source),
            "ss_network_module": "lycoris.kohya",
            "ss_network_args": '{"algo": "full"}',
            "ss_output_name": source.name,
            "ss_base_model_version": "sd_v1-5",
            "modelspec.trigger_phrase": source.name,
        },
    )

    def usage(place: Place) -> dict[str, str]:
        return full_usage(source.name)

    notes = rounding_note(source, changes(source), options.dtype)
    return Built({f"loras/{source.name}.safetensors": file, **embedding_file(source)}, usage, notes)


def diffs(source: Exportable) -> dict[str, Tensor]:
    """W - W0 of each weight by LyCORIS' name for it, in fp32."""
    return {f"{kohya_name(name)}.diff": change for name, change in changes(source).items()}


def full_usage(name: str) -> dict[str, str]:
    """What to type where the changes and the embedding are two files of this name."""
    return {"ComfyUI": comfy(name, f"{name}.safetensors"), "A1111 / Forge": f"{name} <lora:{name}:1>"}

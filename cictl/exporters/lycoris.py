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
    adapter_metadata,
    changes,
    kohya_name,
    rounding_note,
    stored,
)
from cictl.exporters.embedding import embedding_file
from cictl.exporters.usage import comfy


def build(source: Exportable, options: Options) -> Built:
    """The changes and the embedding."""
    file = full_file(source, options)

    def usage(place: Place) -> dict[str, str]:
        return full_usage(source.name)

    notes = rounding_note(source, changes(source), options.dtype)
    return Built({f"loras/{source.name}.safetensors": file, **embedding_file(source)}, usage, notes)


def full_file(source: Exportable, options: Options) -> Tensors:
    """The changes, as programs know the layout."""
    said = adapter_metadata(source, "lycoris.kohya", network_args='{"algo": "full"}')
    return Tensors(stored(diffs(source), options.dtype), said)


def diffs(source: Exportable) -> dict[str, Tensor]:
    """W - W0 of each weight by LyCORIS' name for it, in fp32."""
    return {f"{kohya_name(name)}.diff": change for name, change in changes(source).items()}


def full_usage(name: str) -> dict[str, str]:
    """What to type where the changes and the embedding are two files of this name."""
    return {"ComfyUI": comfy(name, f"{name}.safetensors"), "A1111 / Forge": f"{name} <lora:{name}:1>"}

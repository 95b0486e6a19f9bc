"""Format ``lora``: the changes of K, V as a LoRA with the names and metadata of kohya's scripts.

``lora_unet_<module>.lora_down.weight`` [r, in], ``.lora_up.weight`` [out, r], ``.alpha`` = r, so that the
strength 1 adds up @ down itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, adapter_metadata, kohya_name, stored
from cictl.exporters.decomposition import LowRank, describe, factors_of
from cictl.exporters.embedding import embedding_file, embedding_path
from cictl.exporters.usage import comfy, load_embedding, snippet


def build(source: Exportable, options: Options) -> Built:
    """The LoRA and the embedding."""
    factors = factors_of(source, options.rank)
    path = f"loras/{source.name}.safetensors"

    def usage(place: Place) -> dict[str, str]:
        loads = [
            load_embedding(place, embedding_path(source.name), source.name),
            f"pipe.load_lora_weights({place.file(path)})  # needs: pip install peft",
        ]
        return {
            "ComfyUI": comfy(source.name, f"{source.name}.safetensors"),
            "A1111 / Forge": f"{source.name} <lora:{source.name}:1>",
            "diffusers": snippet(source.name, place.base, loads),
        }

    file = Tensors(stored(kohya_tensors(factors), options.dtype), kohya_metadata(source, factors))
    notes = [describe(source, options)]
    return Built({path: file, **embedding_file(source)}, usage, notes)


def kohya_tensors(factors: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Both factors and alpha of each module."""
    tensors = {}
    for name, pair in factors.items():
        module = kohya_name(name)
        tensors[f"{module}.lora_down.weight"] = pair.down
        tensors[f"{module}.lora_up.weight"] = pair.up
        tensors[f"{module}.alpha"] = torch.tensor(float(pair.rank))
    return tensors


def kohya_metadata(source: Exportable, factors: Mapping[str, LowRank]) -> dict[str, str]:
    """That it is a LoRA of this rank."""
    rank = str(next(iter(factors.values())).rank)
    return adapter_metadata(source, "networks.lora", network_dim=rank, network_alpha=rank)

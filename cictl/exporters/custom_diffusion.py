"""Format ``custom-diffusion``: the tuned K, V as ``load_attn_procs`` of diffusers reads them.

``<module>.attn2.processor.to_{k,v}_custom_diffusion.weight`` = W, and an empty tensor for each attn1, without
which the loader counts too few processors and fails.
"""

from __future__ import annotations

import torch

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, metadata, rounding_note, stored
from cictl.exporters.diffusers_embedding import FILE as EMBEDDING
from cictl.exporters.diffusers_embedding import embedding_file
from cictl.exporters.usage import load_embedding, snippet

FILE = "pytorch_custom_diffusion_weights.safetensors"


def build(source: Exportable, options: Options) -> Built:
    """The weights and the embedding."""
    tensors = {}
    for name, weight in source.key_values.items():
        layer, _, projection = name.removesuffix(".weight").rpartition(".")
        tensors[f"{layer}.processor.{projection}_custom_diffusion.weight"] = weight
        tensors[f"{layer.removesuffix('2')}1.processor"] = torch.zeros(0)

    def usage(place: Place) -> dict[str, str]:
        # Without _pipeline the loader does nothing and says nothing.
        loads = [
            load_embedding(place, EMBEDDING),
            f'pipe.unet.load_attn_procs({place.whole}, weight_name="{FILE}", _pipeline=pipe)',
        ]
        return {"diffusers": snippet(source.name, place.base, loads)}

    file = Tensors(stored(tensors, options.dtype), metadata(source))
    notes = rounding_note(source, source.key_values, options.dtype)
    return Built({FILE: file, **embedding_file(source)}, usage, notes)

"""Format ``diffusers-lora``: the changes of K, V as a LoRA in the layout of PEFT.

``unet.<module>.lora_A.weight`` [r, in], ``.lora_B.weight`` [out, r].
"""

from __future__ import annotations

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, metadata, stored
from cictl.exporters.decomposition import describe, factors_of
from cictl.exporters.diffusers_embedding import FILE as EMBEDDING
from cictl.exporters.diffusers_embedding import embedding_file
from cictl.exporters.usage import load_embedding, snippet

FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder


def build(source: Exportable, options: Options) -> Built:
    """The LoRA and the embedding."""
    factors = factors_of(source, options.rank)
    tensors = {}
    for name, pair in factors.items():
        module = name.removesuffix(".weight")
        tensors[f"unet.{module}.lora_A.weight"] = pair.down
        tensors[f"unet.{module}.lora_B.weight"] = pair.up

    def usage(place: Place) -> dict[str, str]:
        loads = [load_embedding(place, EMBEDDING), f"pipe.load_lora_weights({place.file(FILE)})  # needs: pip install peft"]
        return {"diffusers": snippet(source.name, place.base, loads)}

    file = Tensors(stored(tensors, options.dtype), metadata(source))
    return Built({FILE: file, **embedding_file(source)}, usage, [describe(source, options)])

"""Format ``bundle``: one kohya file with the embedding inside, as A1111 loads it.

To the keys of ``lora`` comes ``bundle_emb.<name>.string_to_param.*`` [m, D]. Forge and ComfyUI pass that key over, and
diffusers refuses a file that has it.
"""

from __future__ import annotations

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, stored
from cictl.exporters.decomposition import describe, factors_of
from cictl.exporters.lora import kohya_metadata, kohya_tensors


def build(source: Exportable, options: Options) -> Built:
    """The LoRA with the embedding in it."""
    factors = factors_of(source, options.rank)
    tensors = {
        **stored(kohya_tensors(factors), options.dtype),
        **stored({f"bundle_emb.{source.name}.string_to_param.*": source.embedding}),
    }
    file = Tensors(tensors, kohya_metadata(source, factors))

    def usage(place: Place) -> dict[str, str]:
        return {"A1111": f"{source.name} <lora:{source.name}:1>"}

    notes = [describe(source, options)]
    return Built({f"loras/{source.name}.safetensors": file}, usage, notes)

"""Format ``safetensors``: the embedding and the exact K/V deltas, as ComfyUI and A1111 load them.

Two files, named after the concept, since A1111 takes the file's name for the word to type:
``embeddings/NAME.safetensors`` as in ``embedding``, and ``loras/NAME.safetensors`` with the tensors of
``lycoris``. Before stage 2, the embedding alone.
"""

from __future__ import annotations

from cictl.exporters.content import Built, Exportable, Options, Place, changes, rounding_note
from cictl.exporters.embedding import embedding_file
from cictl.exporters.lycoris import full_file, full_usage
from cictl.exporters.usage import comfy


def build(source: Exportable, options: Options) -> Built:
    """Both files, or the first."""
    files = embedding_file(source)
    notes = []
    if source.key_values:
        files[f"loras/{source.name}.safetensors"] = full_file(source, options)
        notes = rounding_note(source, changes(source), options.dtype)

    def usage(place: Place) -> dict[str, str]:
        alone = {"ComfyUI": comfy(source.name), "A1111 / Forge": source.name}
        return full_usage(source.name) if source.key_values else alone

    return Built(files, usage, notes)

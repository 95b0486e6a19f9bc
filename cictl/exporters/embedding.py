"""Format ``embedding``: the token as A1111, Forge and ComfyUI load it.

One key ``emb_params`` [m, D]. A1111 takes the file's name for the word to type, and refuses further keys.
"""

from __future__ import annotations

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, metadata, stored
from cictl.exporters.usage import comfy, load_embedding, snippet


def embedding_file(source: Exportable) -> dict[str, Tensors]:
    """The file by its path; forms that hold the changes of K, V carry it too, since those alone draw nothing."""
    content = Tensors(stored({"emb_params": source.embedding}), metadata(source))
    return {embedding_path(source.name): content}


def embedding_path(name: str) -> str:
    """Below the export's folder, which has the sub-folders of ComfyUI's ``models/``."""
    return f"embeddings/{name}.safetensors"


def build(source: Exportable, options: Options) -> Built:
    """The embedding; it has nothing to choose."""

    def usage(place: Place) -> dict[str, str]:
        load = load_embedding(place, embedding_path(source.name), source.name)
        return {
            "ComfyUI": comfy(source.name),
            "A1111 / Forge": source.name,
            "diffusers": snippet(source.name, place.base, [load]),
        }

    return Built(embedding_file(source), usage)

"""Format ``diffusers-embedding``: the token as ``load_textual_inversion`` reads it.

One key ``<name>`` [m, D]; diffusers names the further vectors <name>_1, ... itself, and refuses a key each.
"""

from __future__ import annotations

from cictl.exporters.content import Built, Exportable, Options, Place, Tensors, metadata, stored
from cictl.exporters.usage import load_embedding, snippet

FILE = "learned_embeds.safetensors"  # the name that diffusers looks for in a folder


def embedding_file(source: Exportable) -> dict[str, Tensors]:
    """The file by its path."""
    return {FILE: Tensors(stored({f"<{source.name}>": source.embedding}), metadata(source))}


def build(source: Exportable, options: Options) -> Built:
    """The embedding; it has nothing to choose."""

    def usage(place: Place) -> dict[str, str]:
        return {"diffusers": snippet(source.name, place.base, [load_embedding(place, FILE)])}

    return Built(embedding_file(source), usage)

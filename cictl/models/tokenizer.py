"""Which words a base model has a token of its own for. Imports neither torch nor transformers."""

from __future__ import annotations

import gzip

from cictl.models.locate import Located


def is_word(located: Located, word: str) -> bool:
    """Whether ``word`` is one token of the base model's vocabulary, as ordinary words are.

    Read from the merges: every letter is in the vocabulary, and a token of several because a merge makes it.
    """
    folder = located.folder / "tokenizer"
    packed, plain = folder / "merges.txt.gz", folder / "merges.txt"
    if packed.is_file():
        text = gzip.decompress(packed.read_bytes()).decode()
    else:
        text = plain.read_text("utf-8") if plain.is_file() else ""
    return len(word) == 1 or any(line.replace(" ", "") == f"{word}</w>" for line in text.splitlines())

"""CLIP's tokenizer out of a folder, and which words it reads as one. Imports transformers only to load one, and no torch."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cictl.models.locate import Located

_PACKED = "merges.txt.gz"  # as the tokenizers lie that ship here
_LARGEST_MERGES = 16 << 20  # bytes; CLIP's have half a MB


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in ``folder``, as the library reads it, or made of packed merges alone.

    Raises:
        OSError, ValueError: as the library gives them.
    """
    from transformers import CLIPTokenizer

    if not (folder / _PACKED).is_file():
        return CLIPTokenizer.from_pretrained(folder)
    # The vocabulary is the bytes, the merges, and two marks, in that order.
    merges = [(first, second) for first, second in map(str.split, _merges(folder))]
    characters = _byte_characters()
    tokens = [*characters, *(f"{character}</w>" for character in characters), *map("".join, merges)]
    vocabulary = {token: index for index, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def is_word(located: Located, word: str) -> bool:
    """Whether ``word`` is one token of the base model's vocabulary, as ordinary words are.

    Read from the merges: every letter is in the vocabulary, and a token of several because a merge makes it.
    """
    return len(word) == 1 or any(pair.replace(" ", "") == f"{word}</w>" for pair in _merges(located.folder / "tokenizer"))


def merges_of(whole: Mapping[str, Any]) -> list[str]:
    """The pairs that a tokenizer.json merges, each as merges.txt has it."""
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["model"]["merges"]]


def _merges(folder: Path) -> list[str]:
    packed, plain, whole = folder / _PACKED, folder / "merges.txt", folder / "tokenizer.json"
    if packed.is_file():
        with gzip.open(packed) as file:  # a folder may be anybody's: what unpacks into gigabytes is cut, and so unreadable
            return file.read(_LARGEST_MERGES).decode().splitlines()[1:]
    if plain.is_file():
        return plain.read_text("utf-8").splitlines()[1:]
    return merges_of(json.loads(whole.read_text("utf-8"))) if whole.is_file() else []


def _byte_characters() -> list[str]:
    """A printable character for each byte, in the order in which GPT-2's and CLIP's vocabularies have them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, printable), *(chr(256 + index) for index in range(256 - len(printable)))]

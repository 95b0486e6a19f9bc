"""From what a person writes ("a cube-shaped S*") to what the tokenizer reads. Imports no torch.

``S*`` is never given to the tokenizer: CLIP's would lower-case it and find it inside ``cats*``. The token
that is stored is ``<name>``, and a token of several vectors is ``<name> <name>_1 <name>_2``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cictl.placeholders import AUXILIARY_PATTERN, CONCEPT_PATTERN

_NEARLY = re.compile(r"(?<![\w*])(s\*|[Ss]\s+\*|\{S\*?\}|<[Ss]\*>|\$S\*?)(?![\w*])")


def token_names(name: str, vectors: int) -> list[str]:
    """The stored tokens of a concept of ``vectors`` vectors: <name>, <name>_1, ..."""
    return [f"<{name}>", *(f"<{name}>_{index}" for index in range(1, vectors))]


def auxiliary_names(key: str, vectors: int) -> list[str]:
    """The stored tokens of the auxiliary token of the photograph with this key."""
    return token_names(f"auxiliary-{key}", vectors)


def expand(prompt: str, concept: Sequence[str] = (), auxiliary: Sequence[str] = ()) -> str:
    """Put the stored tokens in the place of ``S*`` and ``A*``. One function, for training and generation."""
    prompt = CONCEPT_PATTERN.sub(lambda _: " ".join(concept), prompt)
    return AUXILIARY_PATTERN.sub(lambda _: " ".join(auxiliary), prompt) if auxiliary else prompt


def mentions_concept(prompt: str) -> bool:
    """Whether ``S*`` stands in the prompt as a word of its own."""
    return CONCEPT_PATTERN.search(prompt) is not None


def near_miss(prompt: str) -> str | None:
    """What in the prompt was probably meant to be ``S*``, such as ``s*`` or ``S *``."""
    found = _NEARLY.search(prompt)
    return found.group() if found else None


def without_auxiliary(prompt: str) -> str:
    """The prompt with ``A*`` left out and the spaces closed."""
    return " ".join(AUXILIARY_PATTERN.sub(" ", prompt).split())

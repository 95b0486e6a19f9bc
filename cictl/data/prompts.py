"""From what a person writes ("a cube-shaped S*") to what the tokenizer reads. Imports no torch.

``S*`` is never given to the tokenizer: CLIP's would lower-case it and find it inside ``cats*``. The token
that is stored is ``<name>``, and a token of several vectors is ``<name> <name>_1 <name>_2``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cictl.errors import UsageError
from cictl.files import quoted
from cictl.placeholders import AUXILIARY, AUXILIARY_PATTERN, CONCEPT, CONCEPT_PATTERN

_AUXILIARY_NAME = "auxiliary-"
_VECTOR = re.compile(r"<[^<>\s]+>(?:_\d+)?")
_STORED = re.compile(r"<([^<>\s]+)>(?:_\d+)?(?: <\1>_\d+)*")
_NEARLY = re.compile(r"(?<![\w*])(s\*|[Ss]\s+\*|[Ss]\\\*|\{S\*?\}|<[Ss]\*>|\$S\*?)(?![\w*])")


def token_names(name: str, vectors: int) -> list[str]:
    """The stored tokens of a concept of ``vectors`` vectors: <name>, <name>_1, ..."""
    return [f"<{name}>", *(f"<{name}>_{index}" for index in range(1, vectors))]


def auxiliary_names(key: str, vectors: int) -> list[str]:
    """The stored tokens of the auxiliary token of the photograph with this key."""
    return token_names(f"{_AUXILIARY_NAME}{key}", vectors)


def expand(prompt: str, concept: Sequence[str] = (), auxiliary: Sequence[str] = ()) -> str:
    """Put the stored tokens in the place of ``S*`` and ``A*``. One function, for training and generation."""
    prompt = CONCEPT_PATTERN.sub(lambda _: " ".join(concept), prompt)
    return AUXILIARY_PATTERN.sub(lambda _: " ".join(auxiliary), prompt) if auxiliary else prompt


def as_written(text: str) -> str:
    """What :func:`expand` was given, for a message: ``S*`` and ``A*`` in the place of stored tokens, also of a part of them."""
    return _STORED.sub(lambda found: AUXILIARY if found[1].startswith(_AUXILIARY_NAME) else CONCEPT, text)


def decoded_as_written(text: str) -> str:
    """The same of what a tokenizer has decoded, which puts no spaces around stored tokens."""
    return as_written(" ".join(_VECTOR.sub(r" \g<0> ", text).split()))


def mentions_concept(prompt: str) -> bool:
    """Whether ``S*`` stands in the prompt as a word of its own."""
    return CONCEPT_PATTERN.search(prompt) is not None


def require_concept(prompt: str, *, where: str = "", command: str = "", otherwise: str = "") -> None:
    """Refuse a prompt without S*.

    Args:
        where: what the message begins with, such as the name of a file.
        command: what was typed before the prompt, for a line that can be typed in its place.
        otherwise: another way on.

    Raises:
        UsageError: it says what was probably meant.
    """
    if not mentions_concept(prompt):
        raise UsageError(
            f"{where}{prompt!r} does not mention {CONCEPT}, the concept",
            "\n".join(line for line in (_proposal(prompt, command), otherwise) if line),
            slug="prompt-without-concept",
        )


def _proposal(prompt: str, command: str) -> str:
    found = near_miss(prompt)
    if found is None:
        example = f"a photo of {CONCEPT} in the snow"
        return f'for example: {command} "{example}"' if command else f"write {CONCEPT} where it is to be drawn, as in: {example}"
    meant = prompt.replace(found, CONCEPT)
    corrected = f"{command} {in_quotes(meant)}" if command else meant
    return f"did you mean {CONCEPT} where it says {found}? {corrected}"


def in_quotes(prompt: str) -> str:
    """As it is typed: in double quotes, as everywhere, unless a shell would read something else."""
    return f'"{prompt}"' if prompt.isprintable() and not set(prompt) & set('"$`\\!') else quoted(prompt)


def one_prompt(words: Sequence[str]) -> str:
    """What was probably typed without quotes where these came in: a prompt, with S* for what is nearly S*; "" if none was."""
    if len(words) < 2 or any(len(word.split()) != 1 for word in words):
        return ""
    together = " ".join(words)
    found = near_miss(together)
    return together.replace(found, CONCEPT) if found else together


def near_miss(prompt: str) -> str | None:
    """What in the prompt was probably meant to be ``S*``, such as ``s*`` or ``S *``."""
    found = _NEARLY.search(prompt)
    return found.group() if found else None


def without_auxiliary(prompt: str) -> str:
    """The prompt with ``A*`` left out and the spaces closed."""
    return " ".join(AUXILIARY_PATTERN.sub(" ", prompt).split())


def in_words(prompt: str, noun: str | None) -> str:
    """The prompt for a reader that does not know S*: with ``noun`` in its place, or without it and the spaces closed."""
    return " ".join(CONCEPT_PATTERN.sub(lambda _: noun or " ", prompt).split())


def read_prompts(path: Path) -> list[str]:
    """The prompts in a text file, one a line; empty lines and those that begin with # are none.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            "give --prompts a text file with a prompt a line",
            slug="prompts-file-unreadable",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", "save it as UTF-8, a prompt a line", slug="prompts-file-not-utf8") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]

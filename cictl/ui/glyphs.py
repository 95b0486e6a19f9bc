"""The characters the panel is drawn with, and what to draw with where the encoding has only ASCII."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One character per role; ``sparks`` run from low to high, ``spinner`` are frames in turn."""

    done: str
    todo: str
    used: str
    free: str
    peak: str
    sparks: str
    spinner: str
    ellipsis: str
    separator: str
    tick: str
    arrow: str


UNICODE = Glyphs(
    done="━", todo="─", used="█", free="░", peak="┃", sparks="▁▂▃▄▅▆▇█", spinner="⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    ellipsis="…", separator="·", tick="✓", arrow="→",
)  # fmt: skip
ASCII = Glyphs(
    done="#", todo="-", used="#", free=".", peak="|", sparks="_.-~=+*#", spinner="|/-\\",
    ellipsis="...", separator="-", tick="*", arrow="->",
)  # fmt: skip


def glyphs_for(encoding: str | None) -> Glyphs:
    """The Unicode set where ``encoding`` can write all of it, else the ASCII one."""
    everything = "".join(getattr(UNICODE, role) for role in Glyphs.__slots__)
    return UNICODE if printable(everything, encoding) == everything else ASCII


def printable(text: object, encoding: str | None = "utf-8") -> str:
    """One line of ``text`` that any terminal shows as it stands.

    Names and prompts come from outside: escape sequences and line breaks in them become spaces, and what
    ``encoding`` cannot write (lone surrogates of file names included) becomes a question mark.
    """
    codec = encoding or "ascii"
    try:
        encodable = str(text).encode(codec, "replace").decode(codec)
    except LookupError:
        encodable = str(text).encode("ascii", "replace").decode("ascii")
    return "".join(character if character.isprintable() else " " for character in encodable)

"""The model card beside an export: what it is, how it was made, and what to type. The same text every time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RAIL = (
    "creativeml-openrail-m",
    "CreativeML Open RAIL-M, which goes along with whatever is made from it: "
    "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
)
LICENCES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _RAIL,
    "runwayml/stable-diffusion-v1-5": _RAIL,  # where it was before, and still is in many caches
    **{f"CompVis/stable-diffusion-v1-{number}": _RAIL for number in (1, 2, 3, 4)},
    "toybox": ("apache-2.0", "Apache-2.0"),
}
SAMPLE = "sample.png"
_MARKUP = re.compile(r"[\\`*\[\]<>&|]")


@dataclass(frozen=True)
class Card:
    """What a card says.

    Attributes:
        name: of the concept.
        word: what to type for it.
        holds: what the export holds, in a few words.
        base: the base model's id, or "local".
        identity: its commit or digest.
        stages: steps done, by stage.
        settings: of the training, by dotted key.
        versions: of the programs that trained, by name.
        notes: what was measured.
        usage: what to type, by program.
        sample: the prompt of the picture, if there is one.
    """

    name: str
    word: str
    holds: str
    base: str
    identity: str
    stages: Mapping[str, int]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: list[str]
    usage: Mapping[str, str]
    sample: str | None


def render(card: Card, hashes: Mapping[str, str]) -> bytes:
    """The card as Markdown, with the front matter that the hub reads.

    Args:
        hashes: the sha256 of each file.
    """
    identifier, licence = LICENCES.get(card.base, ("unknown", "not known to cictl: see where the base model comes from"))
    base = card.base if "/" in card.base else None
    lines = [
        "---",
        f"license: {identifier}",
        *([f"base_model: {base}"] if base else []),
        f'instance_prompt: "{card.word}"',
        "tags: [stable-diffusion, text-to-image, contrastive-inversion]",
        "---",
        "",
        f"# {card.name}",
        "",
        f"A concept that cictl learned by Contrastive Inversion (arXiv 2508.07755). Here: {card.holds}.",
        "",
        *([f"![{_text(card.sample)}]({SAMPLE})", "", f"*{_text(card.sample)}*", ""] if card.sample else []),
        "## What to type",
        "",
    ]
    for program, text in card.usage.items():
        fence = "python" if "\n" in text else "text"
        lines += [f"{program}:", "", f"```{fence}", text, "```", ""]
    lines += ["## Base model", "", f"- {_text(card.base)}, {card.identity}", f"- licence: {licence}", ""]
    if card.notes:
        lines += ["## Measured", "", *(f"- {note}" for note in card.notes), ""]
    lines += ["## Training", ""]
    lines += [f"- {stage}: {steps} steps" for stage, steps in card.stages.items()]
    lines += [f"- {_text(key)}: {_text(value)}" for key, value in sorted(card.settings.items())]
    lines += [f"- {program} {_text(version)}" for program, version in sorted(card.versions.items())]
    lines += ["", "## Files", "", "| file | sha256 |", "|---|---|"]
    lines += [f"| {name} | {digest} |" for name, digest in sorted(hashes.items())]
    return ("\n".join(lines) + "\n").encode()


def _text(value: object) -> str:
    """``value`` on one line, as Markdown that shows it as it is: a prompt may be anybody's, and a card is shown on the hub."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(str(value).split()))

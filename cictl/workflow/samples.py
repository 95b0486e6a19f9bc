"""A picture of outputs/ that shows the concept as it is exported."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cictl.data.png import open_png
from cictl.placeholders import CONCEPT_PATTERN
from cictl.workflow.concept import Concept
from cictl.workspace import Workspace

_OTHER_WAYS = ("strength", "avoid")  # facts of a picture where they are not the defaults


@dataclass(frozen=True)
class Sample:
    """The bytes of a PNG file, and the prompt that it was made with, S* in it."""

    content: bytes
    prompt: str

    def caption(self, name: str) -> str:
        """The prompt with the word to type."""
        return CONCEPT_PATTERN.sub(lambda _: name, self.prompt)


def find_sample(workspace: Workspace, concept: Concept) -> Sample | None:
    """The first by name of the pictures made with these very tensors, as other programs will draw with them; none that a
    safety checker blanked."""
    for path in sorted(workspace.outputs.glob("*.png")):
        try:
            with open_png(path) as image:
                facts = json.loads(image.info.get("cictl", "{}"))
                plain = facts.keys().isdisjoint(_OTHER_WAYS)
                if facts.get("concept") == concept.hash and plain and image.getbbox():
                    return Sample(path.read_bytes(), str(facts["prompt"]))
        except (OSError, SyntaxError, ValueError, KeyError, AttributeError, RecursionError):
            continue
    return None

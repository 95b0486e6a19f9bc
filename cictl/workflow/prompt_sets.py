"""Which prompts an evaluation draws: a set that ships, a text file, or what the toybox knows to ask. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cictl.config import Config
from cictl.config.templates import prompt_set_file, prompt_sets
from cictl.data.prompts import read_prompts, require_concept
from cictl.errors import UsageError
from cictl.files import from_home, is_file
from cictl.placeholders import CONCEPT
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.tasks import tasks

AUTO = "auto"
TOYBOX = "toybox"


@dataclass(frozen=True)
class PromptSet:
    """Prompts with S*, each once; ``name`` is that of a set, or of a file."""

    name: str
    prompts: list[str]


def choose_prompts(config: Config, root: Path, known: ToyConcept | None) -> PromptSet:
    """The prompts that ``evaluate.prompts`` asks for.

    Args:
        root: of the workspace, where a file is looked for that is not where the user is.
        known: the concept, if the toybox knows it: its tasks are then what "auto" means.

    Raises:
        UsageError: there is no such set or file, it holds no prompt, or one without S*.
    """
    name = config.evaluate.prompts
    if name == AUTO:
        name = TOYBOX if known else config.concept.kind
    if name == TOYBOX:
        if known is None:
            raise UsageError(
                "the prompt set toybox is what the toybox asks of concepts of its own, and these photographs are not of one",
                _choices(),
                slug="prompt-set-of-the-toybox",
            )
        return PromptSet(name, [task.prompt for task in tasks(known)])
    shipped = prompt_set_file(name, config.model.id)
    path = shipped or next((file for file in (from_home(name), root / name) if is_file(file)), None)
    if path is None:
        raise UsageError(f"there is no prompt set {name!r}, and no file of that name", _choices(), slug="prompt-set-unknown")
    prompts = list(dict.fromkeys(read_prompts(path)))
    if not prompts:
        raise UsageError(
            f"{path} holds no prompt",
            f"write a prompt a line, such as: a photo of {CONCEPT} in the snow",
            slug="prompt-set-empty",
        )
    for prompt in prompts:
        require_concept(prompt, where=f"{path}: ")
    return PromptSet(name, prompts)


def _choices() -> str:
    return f"--prompts takes a text file with a prompt a line, or one of: {', '.join([AUTO, *prompt_sets(), TOYBOX])}"

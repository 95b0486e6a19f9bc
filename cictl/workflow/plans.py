"""What a picture depends on, how its file is called by that, and what it says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cictl
from cictl.config import Config
from cictl.data.prompts import expand
from cictl.files import sha256_bytes
from cictl.models.locate import Located
from cictl.models.safety import ships_checker
from cictl.placeholders import CONCEPT
from cictl.workflow.concept import Concept
from cictl.workflow.drawing import avoid_of, strength_of, words_of
from cictl.workspace import Workspace, slug

_PICTURE = re.compile(r"-seed\d+-[0-9a-f]{8}\.png$")


@dataclass(frozen=True)
class Plan:
    """Everything that a picture depends on; equal plans give equal pictures, but for float rounding.

    Attributes:
        prompt: as written, with S*.
        text, negative: as the tokenizer reads them, with the stored tokens.
        model, concept: identity of the base model and hash of the concept.
        width, height: in pixels.
        safety_checker: whether that of the base model looks at it, on or off; nothing if it ships none.
        strength: of what training changed in the UNet; 1 also where it changed nothing.
        avoid: how much guidance leads away from the A_i*; 0 also where there are none, or no guidance.
    """

    prompt: str
    text: str
    negative: str
    seed: int
    steps: int
    guidance: float
    sampler: str
    width: int
    height: int
    dtype: str
    model: str
    concept: str
    safety_checker: str = ""
    strength: float = 1.0
    avoid: float = 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """Everything in it, without what came later where it says nothing new: older pictures keep their names."""
        unsaid = {one.name: one.default for one in fields(self) if one.default is not MISSING}
        return {key: value for key, value in asdict(self).items() if key not in unsaid or value != unsaid[key]}

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return sha256_bytes(json.dumps(self.facts, sort_keys=True).encode())

    @property
    def file_name(self) -> str:
        """Prompt, seed and digest, as every file system takes them."""
        return f"{slug(self.prompt)}-seed{self.seed}-{self.digest[:8]}.png"


def make_plan(config: Config, base: Located, concept: Concept, prompt: str, text: str, seed: int) -> Plan:
    """The plan of one picture with the settings of ci.yaml."""
    settings, (width, height) = config.generate, config.picture_size
    checked = "off" if settings.safety_checker == "off" else "on"
    return Plan(
        prompt=prompt,
        text=text,
        negative=expand(settings.negative, words_of(concept)),
        seed=seed,
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
        width=width,
        height=height,
        dtype=config.model.dtype,
        model=base.identity,
        concept=concept.hash,
        safety_checker=checked if ships_checker(base) else "",
        strength=strength_of(config, concept),
        avoid=avoid_of(config, concept),
    )


def make_plans(config: Config, base: Located, concept: Concept, texts: Iterable[tuple[str, str]], count: int) -> list[Plan]:
    """The plans of ``count`` pictures of each prompt, with seeds from ``seed`` on.

    Args:
        texts: each prompt, as written and as the tokenizer reads it.
    """
    seeds = range(config.seed, config.seed + count)
    return [make_plan(config, base, concept, prompt, text, seed) for prompt, text in texts for seed in seeds]


def texts_of(plan: Plan, config: Config) -> dict[str, str]:
    """What a picture's file says of it: the ``parameters`` that A1111 writes and many programs read, and all of it as JSON."""
    samplers = {"ddim": "DDIM", "dpm++": "DPM++ 2M", "euler": "Euler", "unipc": "UniPC"}
    lines = [plan.text]
    if plan.negative:
        lines.append(f"Negative prompt: {plan.negative}")
    lines.append(
        f"Steps: {plan.steps}, Sampler: {samplers[plan.sampler]}, CFG scale: {plan.guidance:g}, Seed: {plan.seed}, "
        f"Size: {plan.width}x{plan.height}, Model hash: {plan.model[:10]}, Model: {Path(config.model.id).name}, "
        + (f"Concept hash: {plan.concept[:10]}, " if plan.text != plan.prompt else "")
        + (f"Strength: {plan.strength:g}, " if plan.strength != 1 else "")
        + (f"Avoid: {plan.avoid:g}, " if plan.avoid else "")
        + ("Safety checker: off, " if plan.safety_checker == "off" else "")
        + f"Version: cictl {cictl.__version__}"
    )
    facts = {
        **plan.facts,
        "alias": CONCEPT,
        "base": Path(config.model.id).name if Path(config.model.id).is_absolute() else config.model.id,
    }
    return {"parameters": "\n".join(lines), "cictl": json.dumps({**facts, "cictl": cictl.__version__}, ensure_ascii=False)}


def is_picture(path: Path) -> bool:
    """Whether the file is called as a plan calls a picture, which no sheet is."""
    return bool(_PICTURE.search(path.name))


def sheet_name(lead: str, paths: Iterable[Path]) -> str:
    """The name of a sheet of pictures: of the same ones the same."""
    names = "\n".join(path.name for path in paths)
    return f"{lead}-{sha256_bytes(names.encode())[:8]}.png"


def listed(workspace: Workspace, paths: Iterable[Path], plans: Iterable[Plan]) -> list[dict[str, Any]]:
    """Drawn pictures as an outcome names them."""
    return [
        {"path": workspace.shown(path), "prompt": plan.prompt, "seed": plan.seed} for path, plan in zip(paths, plans, strict=True)
    ]

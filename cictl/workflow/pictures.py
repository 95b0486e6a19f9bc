"""Pictures from a plan: those on the disk are kept, the rest is made. Shared by all commands that draw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import cictl
from cictl.config import Config
from cictl.data.png import write_png
from cictl.errors import ProcessLost
from cictl.events import ImageSaved, Observer, PicturesPlanned, SamplingStep, Warned
from cictl.models.locate import Located
from cictl.models.safety import ships_checker
from cictl.placeholders import CONCEPT
from cictl.processes import ALONE, Processes
from cictl.workflow.concept import Concept, last_stage, require_same_base
from cictl.workflow.drawing import changes_unet, install
from cictl.workflow.memory import FittingBatches, out_of_memory_explained
from cictl.workflow.pins import find_base, read_pins
from cictl.workflow.shared_base import Opened, SharedBase
from cictl.workspace import Workspace, slug

if TYPE_CHECKING:
    import numpy as np

    from cictl.engine.runtime import StopRequest


_LESS_MEMORY = (
    "close what else uses the device, or draw smaller ones, with --set generate.width=384; those that are finished are kept"
)
_TEXTS = 64  # prompts encoded at a time


@dataclass(frozen=True)
class Plan:
    """Everything that a picture depends on; equal plans give equal pictures, but for float rounding.

    Attributes:
        prompt: as written, with S*.
        text: as the tokenizer reads it, with the stored tokens.
        model, concept: identity of the base model and hash of the concept.
        width, height: in pixels.
        safety_checker: whether that of the base model looks at it, on or off; nothing if it ships none.
        strength: of what training changed in the UNet; 1 also where it changed nothing.
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

    @property
    def facts(self) -> dict[str, Any]:
        """Everything in it, without what came later where it says nothing new: older pictures keep their names."""
        unsaid = {"safety_checker": "", "strength": 1.0}
        return {key: value for key, value in asdict(self).items() if key not in unsaid or value != unsaid[key]}

    @property
    def digest(self) -> str:
        """Of everything in it."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    @property
    def file_name(self) -> str:
        """Prompt, seed and digest, as every file system takes them."""
        return f"{slug(self.prompt)}-seed{self.seed}-{self.digest[:8]}.png"


@dataclass(frozen=True)
class Drawn:
    """The path of each picture, in the order of the plans, how many were there already, and the blanked ones."""

    paths: list[Path]
    kept: int
    blanked: list[Path]


def make_plan(config: Config, base: Located, concept: Concept, prompt: str, text: str, seed: int) -> Plan:
    """The plan of one picture with the settings of ci.yaml."""
    settings = config.generate
    checked = "off" if settings.safety_checker == "off" else "on"
    return Plan(
        prompt=prompt,
        text=text,
        negative=settings.negative,
        seed=seed,
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
        width=settings.width or config.data.resolution,
        height=settings.height or config.data.resolution,
        dtype=config.model.dtype,
        model=base.identity,
        concept=concept.hash,
        safety_checker=checked if ships_checker(base) else "",
        strength=settings.strength if changes_unet(concept.source) else 1.0,
    )


def find_base_of(workspace: Workspace, config: Config, concept: Concept, observe: Observer) -> Located:
    """The base model, which must be the one that the concept was learned on.

    Raises:
        ModelAccessError, ResourceError, StateError: it cannot be had, or is another.
    """
    base = find_base(config, read_pins(workspace, config, last_stage(concept.source)), observe)
    require_same_base(concept.checkpoints, base.identity)
    return base


def draw_pictures(
    config: Config,
    base: Located,
    concept: Concept,
    plans: Sequence[Plan],
    folder: Path,
    observe: Observer,
    *,
    again: str,
    metadata: bool = True,
    processes: Processes = ALONE,
    shared: SharedBase | None = None,
) -> Drawn:
    """Make the pictures that are not in ``folder`` yet.

    Args:
        again: the command that would go on, for the message of an interruption.
        metadata: whether the files say how they were made.
        processes: those that share the work. The first one writes all pictures, and tells of them.
        shared: the base model that drew before; it is the untouched base again when this returns.

    Returns:
        The path of each plan's picture, how many were there already, and which the safety checker blanked.

    Raises:
        Interrupted: by a signal; what was finished is on the disk.
        ProcessLost: one of those that shared the work has ended; the same holds.
    """
    paths = [folder / plan.file_name for plan in plans]
    texts = {path: _texts(plan, config) if metadata else {} for path, plan in zip(paths, plans, strict=True)}
    missing = processes.share(
        lambda: {path: plan for path, plan in zip(paths, plans, strict=True) if not _kept(path, texts[path])}
    )
    observe(PicturesPlanned(len(plans), len(plans) - len(missing)))
    if missing:
        from cictl.engine.runtime import graceful_stop

        with graceful_stop(processes) as stop, out_of_memory_explained(_LESS_MEMORY):
            opened = (shared or SharedBase()).open(config, base, processes, observe)
            eject = install(concept, opened.model, plans[0].strength)
            made = len(plans) - len(missing)
            for path, pixels in _draw(config, opened, missing, stop, observe, again):
                write_png(path, pixels, texts[path])
                made += 1
                observe(ImageSaved(made, len(plans), path, opened.runtime.memory()))
            eject()
        processes.wait()  # until the first has written
    blanked = _blanked(paths, plans, config, observe) if processes.first else []
    return Drawn(paths, len(plans) - len(missing), blanked)


def _draw(
    config: Config,
    opened: Opened,
    missing: dict[Path, Plan],
    stop: StopRequest,
    observe: Observer,
    again: str,
) -> Iterator[tuple[Path, np.ndarray]]:
    """The missing pictures, those of all processes in the first one; the others draw their share and give nothing.

    Each process takes whole batches, as one process would make them up, since the last bits depend on them.
    """
    import torch

    from cictl.engine.sampling import sample

    model, runtime = opened.model, opened.runtime
    for text in {plan.text: None for plan in missing.values()}:
        if lost := model.overlong(text):
            limit = model.tokenizer.model_max_length
            observe(Warned(f"the prompt is longer than the {limit} tokens that the model reads; it loses: {lost}"))
    items = list(missing.items())
    texts = list(dict.fromkeys(text for plan in missing.values() for text in (plan.text, plan.negative)))
    with torch.no_grad():
        encoded = [model.encode_text(model.tokenize(texts[at : at + _TEXTS])) for at in range(0, len(texts), _TEXTS)]
    contexts = dict(zip(texts, torch.cat(encoded), strict=True))

    def heed_stop() -> None:
        if stop:
            raise stop.interruption("stopped; the pictures that are finished are saved", f"{again} makes the rest")

    def after_step(step: int) -> None:
        heed_stop()
        observe(SamplingStep(step, config.generate.steps, runtime.memory()))

    def draw(part: Sequence[Plan]) -> np.ndarray:
        first = part[0]
        latents = sample(
            model,
            torch.stack([contexts[plan.text] for plan in part]),
            contexts[first.negative].unsqueeze(0),
            [plan.seed for plan in part],
            size=(first.width, first.height),
            steps=first.steps,
            guidance=first.guidance,
            sampler=first.sampler,
            after_step=after_step,
        )
        pictures = model.decode(latents)
        return opened.checker.blank(pictures) if opened.checker else pictures

    def collect(own: list[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            return chain.from_iterable(processes.collect(own))
        except ProcessLost:
            heed_stop()  # the signal that ended the other one may have come here in the meantime
            raise

    processes, size = runtime.processes, config.generate.batch_size
    fitting = FittingBatches(draw, size, observe)
    for start in range(0, len(items), processes.count * size):
        begin = start + processes.rank * size
        own = [plan for _, plan in items[begin : begin + size]]
        for (path, _), pixels in zip(items[start:], collect(fitting(own)), strict=False):
            yield path, pixels
    model.free_vae()


def _blanked(paths: Sequence[Path], plans: Sequence[Plan], config: Config, observe: Observer) -> list[Path]:
    """Those that the safety checker blanked, now or in an earlier run: a checked picture that is black all over."""
    blanked = []
    for path, plan in zip(paths, plans, strict=True):
        if plan.safety_checker == "on":
            with Image.open(path) as image:
                if image.getbbox() is None:
                    blanked.append(path)
    if blanked:
        names = ", ".join(path.name for path in blanked)
        observe(Warned(f"the safety checker of {config.model.id} blanked {len(blanked)} of {len(paths)} pictures: {names}"))
    return blanked


def _texts(plan: Plan, config: Config) -> dict[str, str]:
    """The ``parameters`` text that A1111 writes and many programs read, and all of it as JSON."""
    samplers = {"ddim": "DDIM", "dpm++": "DPM++ 2M", "euler": "Euler", "unipc": "UniPC"}
    lines = [plan.text]
    if plan.negative:
        lines.append(f"Negative prompt: {plan.negative}")
    lines.append(
        f"Steps: {plan.steps}, Sampler: {samplers[plan.sampler]}, CFG scale: {plan.guidance:g}, Seed: {plan.seed}, "
        f"Size: {plan.width}x{plan.height}, Model hash: {plan.model[:10]}, Model: {Path(config.model.id).name}, "
        + (f"Concept hash: {plan.concept[:10]}, " if plan.text != plan.prompt else "")
        + (f"Strength: {plan.strength:g}, " if plan.strength != 1 else "")
        + ("Safety checker: off, " if plan.safety_checker == "off" else "")
        + f"Version: cictl {cictl.__version__}"
    )
    facts = {
        **plan.facts,
        "alias": CONCEPT,
        "base": Path(config.model.id).name if Path(config.model.id).is_absolute() else config.model.id,
    }
    return {"parameters": "\n".join(lines), "cictl": json.dumps({**facts, "cictl": cictl.__version__}, ensure_ascii=False)}


def _kept(path: Path, texts: dict[str, str]) -> bool:
    """Whether the picture is there and whole; if it says more or less about itself than ``texts``, it is mended."""
    try:
        with Image.open(path) as image:
            image.load()
            if {key: image.info.get(key) for key in ("parameters", "cictl") if key in image.info} != texts:
                write_png(path, image, texts)
    except (OSError, SyntaxError, ValueError):
        return False
    return True

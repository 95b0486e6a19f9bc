"""Pictures from a plan: those on the disk are kept, the rest is made. Shared by all commands that draw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from cictl.config import Config
from cictl.data.png import open_png, require_writable, write_png
from cictl.errors import ProcessLost
from cictl.events import ImageSaved, Observer, PicturesPlanned, SamplingStep, Warned
from cictl.models.locate import Located
from cictl.processes import ALONE, Processes
from cictl.workflow.concept import Concept, last_stage
from cictl.workflow.drawing import install, led_away
from cictl.workflow.memory import FittingBatches, out_of_memory_explained
from cictl.workflow.pins import find_base, foresee_base, read_pins
from cictl.workflow.plans import Plan, texts_of
from cictl.workflow.shared_base import Opened, SharedBase
from cictl.workflow.stage import require_same_base
from cictl.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cictl.engine.runtime import StopRequest
    from cictl.models.stable_diffusion import StableDiffusion

_LESS_MEMORY = (
    "close what else uses the device, or draw smaller ones, with --set generate.width=384; those that are finished are kept"
)
_TEXTS = 64  # prompts encoded at a time
_NAMED, _SHOWN = 48, 100  # characters of a prompt that tell it from others, and of what it loses


@dataclass(frozen=True)
class Drawn:
    """The path of each picture, in the order of the plans, how many were there already, and the blanked ones."""

    paths: list[Path]
    kept: int
    blanked: list[Path]


def find_base_of(workspace: Workspace, config: Config, concept: Concept, observe: Observer) -> Located:
    """The base model, which must be the one that the concept was learned on.

    Raises:
        ModelAccessError, ResourceError, StateError: it cannot be had, or is another.
    """
    base = find_base(config, read_pins(workspace, config, last_stage(concept.source)), observe)
    require_same_base(concept.checkpoints, base.identity)
    return base


def foresee_base_of(workspace: Workspace, config: Config, concept: Concept, observe: Observer) -> Located | None:
    """What :func:`find_base_of` would find, or None if it would be downloaded. Nothing is downloaded.

    Raises:
        ModelAccessError, ResourceError, StateError: as that.
    """
    base = foresee_base(config, read_pins(workspace, config, last_stage(concept.source)), observe)
    if base:
        require_same_base(concept.checkpoints, base.identity)
    return base


def which_are_there(plans: Sequence[Plan], folder: Path) -> list[bool]:
    """Of each picture, whether :func:`draw_pictures` would find it in ``folder``. Nothing is written."""
    return [_said_by(folder / plan.file_name) is not None for plan in plans]


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
        ResourceError: they cannot be written, which is found out before the model is loaded.
        Interrupted: by a signal; what was finished is on the disk.
        ProcessLost: one of those that shared the work has ended; the same holds.
    """
    paths = [folder / plan.file_name for plan in plans]
    texts = {path: texts_of(plan, config) if metadata else {} for path, plan in zip(paths, plans, strict=True)}

    def find_missing() -> dict[Path, Plan]:
        found = {path: plan for path, plan in zip(paths, plans, strict=True) if not _kept(path, texts[path])}
        if found:
            require_writable(next(iter(found)))
        return found

    missing = processes.share(find_missing)
    observe(PicturesPlanned(len(plans), len(plans) - len(missing)))
    if missing:
        from cictl.engine.runtime import graceful_stop

        with graceful_stop(processes) as stop, out_of_memory_explained(_LESS_MEMORY):
            opened = (shared or SharedBase()).open(config, base, processes, observe)
            eject = install(concept, opened.model, plans[0].strength)
            made = len(plans) - len(missing)
            for path, pixels in _draw(config, opened, concept, missing, stop, observe, again):
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
    concept: Concept,
    missing: dict[Path, Plan],
    stop: StopRequest,
    observe: Observer,
    again: str,
) -> Iterator[tuple[Path, np.ndarray]]:
    """The missing pictures, those of all processes in the first one; the others draw their share and give nothing.

    Each process takes whole batches, as one process would make them up, since the last bits depend on them.
    """
    model, runtime = opened.model, opened.runtime
    contexts = _encode(model, missing.values(), observe)
    first = next(iter(missing.values()))
    negative = led_away(model, concept, contexts[first.negative].unsqueeze(0), first.avoid)

    def heed_stop() -> None:
        if stop:
            raise stop.interruption("stopped; the pictures that are finished are saved", f"{again} makes the rest")

    def after_step(step: int) -> None:
        heed_stop()
        observe(SamplingStep(step, config.generate.steps, runtime.memory()))

    def draw(part: Sequence[Plan]) -> np.ndarray:
        pictures = model.decode(_sample(model, part, contexts, negative, runtime.graphs, after_step))
        if opened.checker is None:
            return pictures
        model.free_vae()  # a GPU of 4 GB has no room for it beside the checker
        return opened.checker.blank(pictures)

    def collect(own: list[np.ndarray]) -> Iterator[np.ndarray]:
        try:
            return chain.from_iterable(processes.collect(own))
        except ProcessLost:
            heed_stop()  # the signal that ended the other one may have come here in the meantime
            raise

    processes, size = runtime.processes, config.generate.batch_size
    items, fitting = list(missing.items()), FittingBatches(draw, size, observe)
    for start in range(0, len(items), processes.count * size):
        begin = start + processes.rank * size
        own = [plan for _, plan in items[begin : begin + size]]
        for (path, _), pixels in zip(items[start:], collect(fitting(own)), strict=False):
            yield path, pixels
    model.free_vae()


def _encode(model: StableDiffusion, plans: Collection[Plan], observe: Observer) -> dict[str, Tensor]:
    """The contexts of all prompts, negative ones too, [L, D] each, with a warning for one that does not fit."""
    import torch

    names = {plan.negative: "the negative prompt" for plan in plans}
    names |= {plan.text: f"the prompt {shorten(plan.prompt, _NAMED, placeholder=' ...')!r}" for plan in plans}
    texts = list(dict.fromkeys(text for plan in plans for text in (plan.text, plan.negative)))
    for text in texts:
        if lost := model.overlong(text):
            limit = model.tokenizer.model_max_length
            observe(Warned(f"{names[text]} is longer than the {limit} tokens that the model reads; it loses: {_beginning(lost)}"))
    with torch.no_grad():
        encoded = [model.encode_text(model.tokenize(texts[at : at + _TEXTS])) for at in range(0, len(texts), _TEXTS)]
    return dict(zip(texts, torch.cat(encoded), strict=True))


def _beginning(text: str) -> str:
    """So much of a text that may be long that one finds it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN].rstrip()} ... ({len(text.split())} words)"


def _sample(
    model: StableDiffusion,
    part: Sequence[Plan],
    contexts: Mapping[str, Tensor],
    negative: Tensor,
    record: bool,
    after_step: Callable[[int], None],
) -> Tensor:
    """The latents of pictures that differ in prompt and seed alone."""
    import torch

    from cictl.engine.sampling import sample

    first = part[0]
    return sample(
        model,
        torch.stack([contexts[plan.text] for plan in part]),
        negative,
        [plan.seed for plan in part],
        size=(first.width, first.height),
        steps=first.steps,
        guidance=first.guidance,
        sampler=first.sampler,
        record=record,
        after_step=after_step,
    )


def _blanked(paths: Sequence[Path], plans: Sequence[Plan], config: Config, observe: Observer) -> list[Path]:
    """Those that the safety checker blanked, now or in an earlier run: a checked picture that is black all over."""
    blanked = []
    for path, plan in zip(paths, plans, strict=True):
        if plan.safety_checker == "on":
            with open_png(path) as image:
                if image.getbbox() is None:
                    blanked.append(path)
    if blanked:
        names = ", ".join(path.name for path in blanked)
        observe(Warned(f"the safety checker of {config.model.id} blanked {len(blanked)} of {len(paths)} pictures: {names}"))
    return blanked


def _kept(path: Path, texts: dict[str, str]) -> bool:
    """Whether the picture is there and whole; if it says more or less about itself than ``texts``, it is mended."""
    said = _said_by(path)
    if said not in (None, texts):
        with open_png(path) as image:
            write_png(path, image, texts)
    return said is not None


def _said_by(path: Path) -> dict[str, str] | None:
    """What the picture says about itself, if it is there and whole."""
    try:
        with open_png(path) as image:
            image.load()
            return {key: image.info[key] for key in ("parameters", "cictl") if key in image.info}
    except (OSError, SyntaxError, ValueError):
        return None

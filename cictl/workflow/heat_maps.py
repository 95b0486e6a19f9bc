"""Heat maps of S* and of each A_i*, over the photographs and over pictures: the rows of a sheet, and their shares in numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cictl.config import Config
from cictl.data.heat import overlay
from cictl.data.photographs import Photograph, load_pixels
from cictl.data.pixels import to_bytes
from cictl.data.png import Row
from cictl.data.prompts import auxiliary_names, expand
from cictl.errors import UsageError
from cictl.events import Observer, PhaseStarted, PicturesPlanned, SamplingStep
from cictl.files import sha256_bytes
from cictl.models.locate import Located
from cictl.workflow.concept import Concept, TokenLayout
from cictl.workflow.drawing import install, led_away
from cictl.workflow.memory import out_of_memory_explained
from cictl.workflow.plans import Plan
from cictl.workspace import Workspace, slug

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.engine.attention_maps import Probe
    from cictl.engine.runtime import Runtime, StopRequest
    from cictl.models.stable_diffusion import StableDiffusion

_LESS_MEMORY = "make the picture smaller, with --set generate.width=384 --set generate.height=384, or take --set model.device=cpu"
_FORM = 2  # of the sheet; another one is another file


@dataclass(frozen=True)
class Share:
    """How much a token is attended to in a picture or a photograph.

    Attributes:
        token: S*, or A* with the name of its photograph.
        over: the name of a photograph, or the seed of a picture.
        mean, most: of its heat map: the share of the attention that goes to it, over all positions and where it is most.
    """

    token: str
    over: str
    mean: float
    most: float


@dataclass(frozen=True)
class Job:
    """Everything that the sheet depends on."""

    config: Config
    concept: Concept
    base: Located
    tokens: TokenLayout
    photographs: Sequence[Photograph]
    plans: Sequence[Plan]
    training_prompt: str

    @property
    def digest(self) -> str:
        """Equal for equal sheets."""
        keys = [(photograph.key, photograph.name) for photograph in self.photographs]
        facts = [_FORM, [plan.digest for plan in self.plans], keys, self.training_prompt, self.config.seed]
        return sha256_bytes(json.dumps([*facts, self.config.data.resolution]).encode())

    @property
    def has_auxiliary(self) -> bool:
        """Whether there are A_i*: not with n = 0."""
        return self.tokens.auxiliary_vectors > 0

    def path(self, workspace: Workspace) -> Path:
        """Of the sheet."""
        return workspace.outputs / "attention" / f"{slug(self.plans[0].prompt)}-{self.digest[:8]}.png"

    def auxiliary(self, photograph: Photograph) -> list[str]:
        """The stored tokens of a photograph's A_i*; none with n = 0."""
        return auxiliary_names(photograph.key, self.tokens.auxiliary_vectors) if self.has_auxiliary else []


def look(job: Job, observe: Observer) -> tuple[list[Row], list[Share]]:
    """The rows of the sheet, and in numbers what they show.

    Raises:
        UsageError: the prompt is too long.
        Interrupted: by a signal; nothing is kept.
    """
    from cictl.engine.runtime import Runtime, graceful_stop
    from cictl.workflow.base_model import open_base

    with graceful_stop() as stop, out_of_memory_explained(_LESS_MEMORY):
        observe(PhaseStarted("loading the libraries"))
        runtime = Runtime.configured(job.config.model)
        model = open_base(job.base, runtime, observe)
        install(job.concept, model, job.plans[0].strength)
        _require_fit(job, model)
        of_photographs, shares = _look_at_photographs(job, model, stop, observe)
        of_pictures, more = _look_at_pictures(job, model, runtime, stop, observe)
        return [*of_photographs, *of_pictures], [*shares, *more]


def _require_fit(job: Job, model: StableDiffusion) -> None:
    """Refuse a prompt that, with A_i* behind it, is longer than the model reads: there would be nothing to look for."""
    for text in (job.plans[0].text, *(_behind(job.plans[0].text, job.auxiliary(photo)) for photo in job.photographs)):
        if model.overlong(text):
            raise UsageError(
                f"{job.plans[0].prompt!r} is too long: with a token of {job.tokens.auxiliary_vectors} vectors behind it, it is "
                f"longer than the {model.tokenizer.model_max_length} tokens that the model reads",
                "take a shorter prompt",
                slug="attention-prompt-too-long",
            )
    texts = [expand(job.training_prompt, job.tokens.concept_names, job.auxiliary(photo)) for photo in job.photographs]
    model.require_fit(texts, "invert.prompts")


def _behind(text: str, names: Sequence[str]) -> str:
    return " ".join([text, *names])


def _look_at_photographs(job: Job, model: StableDiffusion, stop: StopRequest, observe: Observer) -> tuple[list[Row], list[Share]]:
    from cictl.engine.attention_maps import Probe, maps_of_photograph

    pixels = [load_pixels(photograph, job.config.data.resolution) for photograph in job.photographs]
    observe(PhaseStarted(f"looking at {len(pixels)} photographs"))
    latents, _ = model.encode_pictures(pixels)
    pictures = list(map(to_bytes, pixels))
    names = [photograph.name for photograph in job.photographs]
    maps = []
    for index, photograph in enumerate(job.photographs):
        if stop:
            raise stop.interruption("stopped; nothing was written", "the same command begins anew")
        own = job.auxiliary(photograph)
        text = expand(job.training_prompt, job.tokens.concept_names, own)
        probes = [Probe(text, job.tokens.concept_names), *([Probe(text, own)] if own else [])]
        maps.append(maps_of_photograph(model, latents[index : index + 1], job.config.seed, photograph.key, probes))
    headings = [f'S* in each, with "{job.training_prompt}"', "A* of each, in the same prompt"]
    rows, shares = [Row("the photographs, as the model sees them", pictures, names)], []
    for place in range(len(maps[0])):
        over = [overlay(picture, heat[place].numpy()) for picture, heat in zip(pictures, maps, strict=True)]
        rows.append(Row(headings[place], over))
        for name, heat in zip(names, maps, strict=True):
            shares.append(_share(f"A* ({name})" if place else "S*", name, heat[place]))
    return rows, shares


def _look_at_pictures(
    job: Job, model: StableDiffusion, runtime: Runtime, stop: StopRequest, observe: Observer
) -> tuple[list[Row], list[Share]]:
    from cictl.engine.attention_maps import Probe
    from cictl.workflow.base_model import open_checker

    names = {f"A* ({photograph.name})": job.auxiliary(photograph) for photograph in job.photographs if job.has_auxiliary}
    observe(PicturesPlanned(len(job.plans), 0))

    def after_step(step: int) -> None:
        if stop:
            raise stop.interruption("stopped; nothing was written", "the same command begins anew")
        observe(SamplingStep(step, job.plans[0].steps, runtime.memory()))

    checker = open_checker(job.config, model, observe)
    rows, shares = [], []
    for plan in job.plans:
        probes = [Probe(plan.text, job.tokens.concept_names)]
        probes += [Probe(_behind(plan.text, own), own) for own in names.values()]
        latents, maps = _draw(job, model, plan, probes, after_step)
        pictures = model.decode(latents)
        picture = (checker.blank(pictures) if checker else pictures)[0]
        labels = ["S*", *names]
        rows.append(
            Row(
                f"{plan.prompt}: the picture, S*" + (", and where each A* would look, were it in the prompt" if names else ""),
                [picture, *(overlay(picture, heat.numpy()) for heat in maps)],
                [f"seed {plan.seed}", *labels],
            )
        )
        shares += [_share(label, f"seed {plan.seed}", heat) for label, heat in zip(labels, maps, strict=True)]
    model.free_vae()
    return rows, shares


def _draw(
    job: Job, model: StableDiffusion, plan: Plan, probes: Sequence[Probe], after_step: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    import torch

    from cictl.engine.attention_maps import maps_of_picture

    with torch.no_grad():
        context, negative = model.encode_text(model.tokenize([plan.text, plan.negative])).split(1)
    return maps_of_picture(
        model,
        context,
        led_away(model, job.concept, negative, plan.avoid),
        plan.seed,
        probes,
        size=(plan.width, plan.height),
        steps=plan.steps,
        guidance=plan.guidance,
        sampler=plan.sampler,
        after_step=after_step,
    )


def _share(token: str, over: str, heat: Tensor) -> Share:
    return Share(token, over, round(float(heat.mean()), 6), round(float(heat.max()), 6))

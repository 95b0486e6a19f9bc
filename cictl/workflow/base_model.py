"""Opening the base model, encoding the photographs for it, and previews in the middle of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from cictl.config import Config, Stage
from cictl.data.draws import EncodedPhotographs
from cictl.data.photographs import Photograph, load_pixels
from cictl.data.png import write_png
from cictl.engine.runtime import Runtime
from cictl.engine.sampling import sample
from cictl.events import Note, Observer, PhaseStarted, PreviewSaved, Warned
from cictl.models.checkpointing import set_memory
from cictl.models.clip import embed_images
from cictl.models.locate import Located
from cictl.models.safety import SafetyChecker, ships_checker, unreadable_checker
from cictl.models.stable_diffusion import StableDiffusion
from cictl.sizes import size_in_words
from cictl.workflow.fitting import choose_memory, collect_garbage, free_memory
from cictl.workspace import Workspace

_AGAIN = {"low": "blocks of the highest resolution are computed", "lowest": "all blocks are computed"}


def open_base(located: Located, runtime: Runtime, observe: Observer) -> StableDiffusion:
    """Load the base model.

    Raises:
        ModelAccessError: its files cannot be read.
    """
    if runtime.overlooked:
        observe(Warned(runtime.overlooked))
    observe(PhaseStarted(f"loading {located.id}"))
    collect_garbage(runtime.device)
    model = StableDiffusion.load(located, runtime.device, runtime.dtype, fused=runtime.fused)
    if model.unfused:
        observe(Note(f"model.fused: the kernels cannot be built here, the library's are slower ({model.unfused})"))
    return model


def open_to_train(config: Config, stage: Stage, located: Located, runtime: Runtime, observe: Observer) -> StableDiffusion:
    """Load the base model, so that a training of ``stage`` keeps what model.memory says; auto is chosen before it is loaded.

    Raises:
        ModelAccessError: its files cannot be read.
    """
    memory = choose_memory(config, stage, located, runtime.device, runtime.dtype, runtime.processes.count)
    if memory != "full":
        free = size_in_words(free_memory(runtime.device), "MiB")
        observe(Note(f"model.memory is {memory}: {_AGAIN[memory]} again in the backward pass ({free} free)"))
    model = open_base(located, runtime, observe)
    set_memory(model.unet, memory)
    return model


def open_checker(config: Config, model: StableDiffusion, observe: Observer) -> SafetyChecker | None:
    """The safety checker that the base model ships, unless it ships none or ci.yaml says off.

    Raises:
        ModelAccessError: it is there and cannot be read.
    """
    if config.generate.safety_checker == "off":
        return None
    if unreadable_checker(model.located):
        observe(
            Warned(
                f"the safety checker of {model.located.id} is not there as safetensors, whole, with its feature_extractor/: "
                "pictures are not checked"
            )
        )
    return SafetyChecker.load(model.located, model.device) if ships_checker(model.located) else None


def encode_photographs(
    model: StableDiffusion, photographs: Sequence[Photograph], resolution: int, clip: Located | None, observe: Observer
) -> EncodedPhotographs:
    """Encode each photograph once, for the VAE and (with ``clip``) for Eq. 2."""
    observe(PhaseStarted(f"encoding {len(photographs)} photographs"))
    pictures = [load_pixels(photograph, resolution) for photograph in photographs]
    mean, std = model.encode_pictures(pictures)
    embeddings = embed_images(clip, pictures, model.device).to(model.device) if clip else None
    return EncodedPhotographs(tuple(photograph.key for photograph in photographs), mean, std, embeddings)


def prompt_encoder(model: StableDiffusion, text: str) -> Callable[[], tuple[Tensor, Tensor]]:
    """A function that gives the contexts of ``text`` and of the empty prompt, [1, L, D] each, as they are by then."""
    ids = model.tokenize([text, ""])

    def encode() -> tuple[Tensor, Tensor]:
        context, negative = model.encode_text(ids).split(1)
        return context, negative

    return encode


def previewer(
    workspace: Workspace,
    stage: Stage,
    config: Config,
    model: StableDiffusion,
    encode: Callable[[], tuple[Tensor, Tensor]],
    observe: Observer,
) -> Callable[[int], None]:
    """A function that draws one picture after a number of steps.

    Args:
        encode: of the preview's prompt; see :func:`prompt_encoder`.
    """

    checker = cache(lambda: open_checker(config, model, observe))  # loaded for the first preview, if there is one

    def preview(step: int) -> None:
        with torch.no_grad():
            context, negative = encode()
        latents = sample(
            model, context, negative, [config.seed],
            size=config.picture_size, steps=config.preview.steps, guidance=config.generate.guidance,
        )  # fmt: skip
        path = preview_path(workspace, stage, step)
        pictures = model.decode(latents)
        model.free_vae()
        checking = checker()
        write_png(path, (checking.blank(pictures) if checking else pictures)[0])
        observe(PreviewSaved(step, path))

    return preview


def preview_path(workspace: Workspace, stage: Stage, step: int) -> Path:
    """Where the preview of a training step lies."""
    return workspace.outputs / "previews" / f"{stage}-step-{step:07d}.png"

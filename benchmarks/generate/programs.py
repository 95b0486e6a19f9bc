"""What runs behind a gate: cictl's own command, and diffusers' pipeline as its documentation calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.gate import Gate

PROMPT = "a photo of a toy on the beach"


def run_cictl(gate: Gate, workspace: Path, out: Path, batch: int, settings: Mapping[str, Any]) -> None:
    """Draw as ``cictl generate --stage base`` does; every full batch on the disk is the end of a block.

    Args:
        settings: as --set gives them, by dotted key.
    """
    from cictl.events import Event, ImageSaved, Note, Warned
    from cictl.workflow import generate
    from cictl.workspace import Workspace

    def observe(event: Event) -> None:
        if isinstance(event, Note | Warned):  # such as that there are no fused kernels
            gate.note(event.message)
        if isinstance(event, ImageSaved) and event.index % batch == 0:
            gate.arrive()

    generate.run(Workspace(workspace), [PROMPT], observe, overrides=settings, source="base", out=out)


def run_diffusers(
    gate: Gate, base: Path, out: Path, batch: int, resolution: int, steps: int, guidance: float, dtype: str | None
) -> None:
    """Draw with StableDiffusionPipeline and write the same kind of file; every call is a block.

    Args:
        dtype: as from_pretrained takes it; None leaves it out.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    precision = {} if dtype is None else {"torch_dtype": getattr(torch, dtype)}
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None, **precision).to(gate.device)
    out.mkdir(parents=True, exist_ok=True)
    made = 0
    while True:
        pictures = pipeline(
            PROMPT, num_images_per_prompt=batch, num_inference_steps=steps, guidance_scale=guidance, height=resolution,
            width=resolution,
        ).images  # fmt: skip
        for picture in pictures:
            made += 1
            picture.save(out / f"{made}.png")
        gate.arrive()

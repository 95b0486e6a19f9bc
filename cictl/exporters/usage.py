"""What to type in the programs that read an export."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cictl.exporters.content import Place

PICTURE = "a photo of <{name}> in the snow"


def opening(how: str, *arguments: str) -> str:
    """The expression that opens a pipeline, in fp32 whatever its files are in, so that nothing of the change is rounded.

    Args:
        how: from_pretrained or from_single_file.
        arguments: Python expressions.
    """
    return f"StableDiffusionPipeline.{how}({', '.join([*arguments, 'torch_dtype=torch.float32'])})"


def snippet(name: str, opened: str, loads: Sequence[str] = ()) -> str:
    """A Python program that draws a picture of the concept with diffusers.

    Args:
        opened: an expression that gives the pipeline.
        loads: what is done with it.
    """
    lines = [
        "import torch",
        "from diffusers import StableDiffusionPipeline",
        "",
        f"pipe = {opened}",
        *loads,
        f"picture = pipe({json.dumps(PICTURE.format(name=name))}, num_inference_steps=50, guidance_scale=5).images[0]",
        f'picture.save("{name}.png")',
    ]
    return "\n".join(lines)


def comfy(name: str, lora: str = "") -> str:
    """For a text field of ComfyUI, and the node that the file needs."""
    node = f", and a Load LoRA node with {lora} at strength 1" if lora else ""
    return f"embedding:{name}{node}"


def load_embedding(place: Place, file: str, name: str = "") -> str:
    """The line that makes a pipeline know the token; without ``name`` the file itself says it."""
    token = f', token="<{name}>"' if name else ""
    return f"pipe.load_textual_inversion({place.file(file)}{token})"

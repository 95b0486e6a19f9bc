"""The half of CLIP that Stable Diffusion's folder lacks: the image tower and both projections, for Eq. 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cictl.errors import ModelAccessError
from cictl.models.locate import Located
from cictl.models.quiet import quiet_libraries


def text_projection(clip: Located) -> Tensor:
    """W of the text projection, [D_shared, D_text], in fp32.

    Raises:
        ModelAccessError: the folder holds none.
    """
    from safetensors import SafetensorError, safe_open

    path = clip.folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor("text_projection.weight").float()
    except (OSError, SafetensorError) as error:
        raise ModelAccessError(
            f"{path} has no text projection ({error})",
            "set model.clip in ci.yaml to the whole CLIP model, such as openai/clip-vit-large-patch14",
        ) from None


def embed_images(clip: Located, photographs: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """tau_I(x_i), the CLIP image embeddings of the photographs, not normalised.

    The image tower is loaded, used and freed.

    Args:
        photographs: N arrays [3, R, R] in [-1, 1].

    Returns:
        [N, D_shared] in fp32 on the CPU.

    Raises:
        ModelAccessError: the folder holds no image tower, or only a part of one.
    """
    from transformers import CLIPVisionModelWithProjection
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    quiet_libraries()
    try:
        processor = CLIPImageProcessorPil.from_pretrained(clip.folder)
        tower, report = CLIPVisionModelWithProjection.from_pretrained(
            clip.folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ModelAccessError(
            f"{clip.folder} holds no CLIP image tower ({error})",
            "set model.clip in ci.yaml to the whole CLIP model, such as openai/clip-vit-large-patch14",
        ) from None
    _require_whole(report, clip)
    pictures = [Image.fromarray(_to_bytes(pixels)) for pixels in photographs]
    tower = tower.eval().requires_grad_(False).to(device)
    embeddings = []
    with torch.no_grad():
        for picture in pictures:
            inputs = processor(images=picture, return_tensors="pt").pixel_values.to(device)
            embeddings.append(tower(pixel_values=inputs).image_embeds.float().cpu())
    return torch.cat(embeddings)


def _require_whole(report: Any, clip: Located) -> None:
    missing = [key for key in report["missing_keys"] if not key.endswith("position_ids")]
    if missing:
        raise ModelAccessError(
            f"the CLIP image tower of {clip.id} is incomplete: {len(missing)} weights are missing, such as {missing[0]}",
            "set model.clip in ci.yaml to the whole CLIP model, such as openai/clip-vit-large-patch14",
        )


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    scaled = np.rint((pixels.transpose(1, 2, 0) + 1) * 127.5)
    return np.clip(scaled, 0, 255).astype(np.uint8)

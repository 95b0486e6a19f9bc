"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193): what is in a picture, whatever one calls it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor

from cictl.evaluation.loading import embed, load_processor, loaded
from cictl.models.locate import Located

_HINT = "set evaluate.dinov2 to a DINOv2 model such as facebook/dinov2-base, or to null to leave its figure out"


def embed_with_dinov2(located: Located, sets: Iterable[Iterable[Image.Image]], device: torch.device) -> list[Tensor]:
    """The class token of DINOv2's last hidden state, after its final layer norm, for each picture of each set.

    Pictures are prepared by the model's own image processor: dinov2-base's resizes the shorter side to 256, bicubic,
    and cuts out the 224 x 224 in the centre. The network is loaded, used and freed.

    Returns:
        Of each set [P, D] in fp32 on the CPU, not normalised; the last bits do not depend on the other sets.

    Raises:
        ModelAccessError: the folder holds no DINOv2, or only a part of one.
    """
    from transformers import Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil  # the one without torchvision

    processor = load_processor(BitImageProcessorPil, located, _HINT)
    with loaded(Dinov2Model, located, _HINT, device) as network:
        return [
            embed(pictures, processor, lambda pixels: network(pixel_values=pixels).last_hidden_state[:, 0], device)
            for pictures in sets
        ]

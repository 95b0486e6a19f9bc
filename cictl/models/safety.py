"""The safety checker that a base model may ship: it blanks the pictures that it flags.

Imports neither torch nor diffusers before it loads one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cictl.errors import ModelAccessError, lacking
from cictl.models.locate import CHECKER_FILES, Located
from cictl.models.pretrained import UnreadableError, load_pretrained

if TYPE_CHECKING:
    import numpy as np
    import torch

_WITHOUT = "fetch the model again, or draw without it: --set generate.safety_checker=off"


def ships_checker(located: Located) -> bool:
    """Whether the base model comes with a safety checker that can be read, as safetensors."""
    return all((located.folder / name).is_file() for name in CHECKER_FILES)


def unreadable_checker(located: Located) -> bool:
    """Whether it comes with one that is not whole, or is a pickle, which is not read."""
    return (located.folder / "safety_checker").is_dir() and not ships_checker(located)


class SafetyChecker:
    """A safety checker and what prepares pictures for it; on the CPU while it has nothing to do."""

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self.model = model
        self.processor = processor
        self.device = device

    @classmethod
    def load(cls, located: Located, device: torch.device) -> SafetyChecker:
        """The checker in the folder of a base model, in fp32.

        Raises:
            ModelAccessError: it cannot be read, or lacks weights.
        """
        from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        try:
            model, missing = load_pretrained(StableDiffusionSafetyChecker, located.folder / "safety_checker")
            processor = CLIPImageProcessorPil.from_pretrained(located.folder / "feature_extractor")
        except (UnreadableError, OSError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelAccessError(
                f"{located.id}: its safety checker cannot be loaded ({first_line})", _WITHOUT, slug="checker-unreadable"
            ) from None
        if missing:
            # A weight that is not there would be random, and the checker would flag at random.
            raise ModelAccessError(
                f"{located.id}: its safety checker {lacking(missing)}",
                _WITHOUT,
                slug="checker-incomplete",
            )
        return cls(model.eval().requires_grad_(False).float(), processor, device)

    def blank(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures [B, H, W, 3] of bytes, those that the checker flags black."""
        import numpy as np
        from PIL import Image

        inputs = self.processor(images=[Image.fromarray(pixels) for pixels in pictures], return_tensors="pt").pixel_values
        try:
            model = self.model.to(self.device)
            _, flagged = model(clip_input=inputs.to(self.device), images=[np.zeros(1) for _ in pictures])
        finally:  # also where the memory is not enough, and fewer pictures are tried next
            self.model.to("cpu")
        return np.where(np.array(flagged)[:, None, None, None], np.uint8(0), pictures)

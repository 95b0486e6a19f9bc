"""Textual Inversion (Gal et al. 2022, arXiv 2208.01618): one new token, and nothing else.

Settings are those of examples/textual_inversion of the library diffusers, steps and rate those of Table 1 of
arXiv 2508.07755.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cictl.data.draws import Batch
from cictl.data.prompts import expand
from cictl.functional.losses import ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.stable_diffusion import StableDiffusion

# The 27 and 19 prompts of the paper, which come from those that CLIP was tried on ImageNet with. Two of style stand twice.
OBJECT_PROMPTS = (
    "a photo of a S*", "a rendering of a S*", "a cropped photo of the S*", "the photo of a S*", "a photo of a clean S*",
    "a photo of a dirty S*", "a dark photo of the S*", "a photo of my S*", "a photo of the cool S*", "a close-up photo of a S*",
    "a bright photo of the S*", "a cropped photo of a S*", "a photo of the S*", "a good photo of the S*", "a photo of one S*",
    "a close-up photo of the S*", "a rendition of the S*", "a photo of the clean S*", "a rendition of a S*",
    "a photo of a nice S*", "a good photo of a S*", "a photo of the nice S*", "a photo of the small S*",
    "a photo of the weird S*", "a photo of the large S*", "a photo of a cool S*", "a photo of a small S*",
)  # fmt: skip
STYLE_PROMPTS = tuple(
    f"{what} in the style of S*"
    for what in (
        "a painting", "a rendering", "a cropped painting", "the painting", "a clean painting", "a dirty painting",
        "a dark painting", "a picture", "a cool painting", "a close-up painting", "a bright painting", "a cropped painting",
        "a good painting", "a close-up painting", "a rendition", "a nice painting", "a small painting", "a weird painting",
        "a large painting",
    )
)  # fmt: skip


class TextualInversion:
    """Trains S* by the diffusion loss alone.

    Args:
        model: the base model, which knows ``tokens`` already.
        tokens: what is trained; they have no auxiliary vectors.
        prompts: with S*, of which one is drawn for each sample.

    Raises:
        UsageError: a prompt is too long for the model.
    """

    def __init__(self, model: StableDiffusion, tokens: ConceptTokens, prompts: Sequence[str]) -> None:
        self.model = model
        self.tokens = tokens
        texts = [expand(prompt, tokens.concept_names) for prompt in prompts]
        model.require_fit(texts, "textual_inversion.prompts")
        self.prompt_ids = model.tokenize(texts)

    def trainable(self) -> dict[str, nn.Parameter]:
        """S*."""
        return {"concept": self.tokens.concept}

    def diffusion(self, batch: Batch) -> Tensor:
        """Eq. 2 of the paper: the mean squared error of the denoising, with a drawn prompt for each sample."""
        context = self.model.encode_rows(self.prompt_ids, batch.chosen(len(self.prompt_ids)))
        return ldm_loss(*denoise(self.model, batch, context))

    def loss(self, batch: Batch) -> Loss:
        """The diffusion loss, and nothing else."""
        diffusion = self.diffusion(batch)
        return Loss(diffusion, {"diffusion": diffusion.detach()})

    def result(self) -> dict[str, Tensor]:
        """The token, as saved."""
        return self.tokens.tensors()

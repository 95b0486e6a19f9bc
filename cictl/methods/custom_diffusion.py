"""Custom Diffusion (Kumari et al. 2022, arXiv 2212.04488): K, V of the cross-attention, and one token before a noun.

Settings are those of examples/custom_diffusion of the library diffusers, steps and rate those of Table 1 of
arXiv 2508.07755. Two things differ. The masked loss is the mean over the elements that the mask leaves; the public code
divides by the number of positions, so that its weight against the prior loss is larger by the number of channels. And
the rescaled photographs are drawn from views encoded beforehand (``views``), where the code makes a new one at each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cictl.config import CustomDiffusionConfig
from cictl.data.draws import Batch
from cictl.functional.losses import ldm_loss, masked_ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.attention_processors import TunedCrossAttention
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.stable_diffusion import StableDiffusion


class CustomDiffusion:
    """Trains K, V and the token. The first position of every context, which is that of no word, sends no gradient back.

    Args:
        model: the base model, which knows ``tokens`` already.
        tokens: the one token.
        prompts: with token and noun, for each view of each photograph, in the order of their rows.
        masks: where the photograph is in each view, [rows, 1, H, W], zeros and ones.
        class_prompt: with the noun alone, for the class pictures of a batch.
        settings: group ``custom_diffusion`` of ci.yaml.

    Raises:
        UsageError: a prompt is too long for the model.
    """

    def __init__(
        self,
        model: StableDiffusion,
        tokens: ConceptTokens,
        prompts: Sequence[str],
        masks: Tensor,
        class_prompt: str,
        settings: CustomDiffusionConfig,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.masks = masks
        self.settings = settings
        different = list(dict.fromkeys(prompts))
        model.require_fit([*different, class_prompt], "custom_diffusion.prompt")
        self.prompt_ids = model.tokenize(different)
        self.prompt_of_row = torch.tensor([different.index(prompt) for prompt in prompts], device=model.device)
        with torch.no_grad():
            self.class_context = model.encode_text(model.tokenize([class_prompt]))
        self.attention = TunedCrossAttention(model.unet, model.key_values, detach_first=True)
        self.attention.inject()

    def trainable(self) -> dict[str, nn.Parameter]:
        """The token, and K, V of every cross-attention layer, by name."""
        return {"concept": self.tokens.concept, **self.attention.parameters()}

    def diffusion(self, batch: Batch) -> Tensor:
        """The diffusion loss where the photograph is."""
        context = self.model.encode_rows(self.prompt_ids, self.prompt_of_row[batch.rows])
        target, prediction = denoise(self.model, batch, context)
        return masked_ldm_loss(target, prediction, self.masks[batch.rows])

    def loss(self, batch: Batch) -> Loss:
        """The diffusion loss, plus the weight times that of pictures of the noun."""
        diffusion = self.diffusion(batch)
        if batch.class_pictures is None:
            return Loss(diffusion, {"diffusion": diffusion.detach()})
        prior = ldm_loss(*denoise(self.model, batch.class_pictures, self.class_context))
        total = diffusion + self.settings.prior_weight * prior
        return Loss(total, {"diffusion": diffusion.detach(), "prior": prior.detach()})

    def result(self) -> dict[str, Tensor]:
        """The token and the tuned K, V: 77 MB for Stable Diffusion 1.5."""
        return {**self.tokens.tensors(), **self.attention.tensors()}

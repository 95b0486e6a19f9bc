"""DreamBooth (Ruiz et al. 2022, arXiv 2208.12242): the whole UNet, on a rare word before a noun.

Settings are those of examples/dreambooth of the library diffusers, steps and rate those of Table 1 of arXiv 2508.07755.
The text encoder is frozen and there is no prior loss, as there by default; the paper has one (``prior_weight``). The
UNet is trained, and runs, in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cictl.config import DreamBoothConfig
from cictl.data.draws import Batch
from cictl.functional.losses import ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tuned_unet import TunedUNet


class DreamBooth:
    """Trains every weight of the UNet.

    The contexts never change, so they are encoded once, here, and the text encoder is not needed afterwards.

    Args:
        model: the base model.
        weights: of its UNet, in fp32, by name.
        prompt: with the identifier and the noun.
        class_prompt: with the noun alone, for the class pictures of a batch.
        settings: group ``dreambooth`` of ci.yaml.

    Raises:
        UsageError: a prompt is too long for the model.
    """

    def __init__(
        self, model: StableDiffusion, weights: dict[str, Tensor], prompt: str, class_prompt: str, settings: DreamBoothConfig
    ) -> None:
        self.model = model
        self.settings = settings
        prompts = [prompt, class_prompt]
        model.require_fit(prompts, "dreambooth.prompt")
        with torch.no_grad():
            self.context, self.class_context = model.encode_text(model.tokenize(prompts)).split(1)
        self.unet = TunedUNet(model.unet, weights)
        self.unet.inject()

    def trainable(self) -> dict[str, nn.Parameter]:
        """The UNet's weights, by name."""
        return self.unet.parameters()

    def diffusion(self, batch: Batch) -> Tensor:
        """The diffusion loss of the photographs."""
        return ldm_loss(*denoise(self.model, batch, self.context))

    def loss(self, batch: Batch) -> Loss:
        """The paper's Eq. 2: the diffusion loss, plus the weight times that of pictures which the base drew of the noun."""
        diffusion = self.diffusion(batch)
        if batch.class_pictures is None:
            return Loss(diffusion, {"diffusion": diffusion.detach()})
        prior = ldm_loss(*denoise(self.model, batch.class_pictures, self.class_context))
        total = diffusion + self.settings.prior_weight * prior
        return Loss(total, {"diffusion": diffusion.detach(), "prior": prior.detach()})

    def result(self) -> dict[str, Tensor]:
        """The whole UNet: 3.4 GB for Stable Diffusion 1.5."""
        return self.unet.tensors()

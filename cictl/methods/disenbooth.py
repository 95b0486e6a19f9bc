"""DisenBooth (Chen et al. 2023, arXiv 2305.03374): what photographs share in LoRA, and the rest in an adapter.

Settings are those of the public code (train_disenbooth.py, disen_net.py), steps those of Table 1 of arXiv 2508.07755. Two
things are done as the paper says, and not as that code does: photographs are prepared by CLIP's own processor before its
image tower reads them, where the code gives it pixels that are not normalised; and the cosine is that of each sample,
then the mean over the batch, where the code's is right for a batch of one alone. The norm that gradients are clipped to is
that of LoRA and adapter together, where the code leaves the adapter out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.config import DisenBoothConfig
from cictl.data.draws import Batch, EncodedPhotographs, randomness
from cictl.errors import ModelAccessError
from cictl.functional.losses import ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tuned_unet import AttentionLoRA


class ImageAdapter(nn.Module):
    """f = MLP(x) + x with x = sigmoid(mask) * v: what of a photograph's embedding v is its own.

    Args:
        width: D.
        seed: of the MLP's start, uniform within 1 / sqrt(D); the mask starts at zero.
    """

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        self.mask = nn.Parameter(torch.zeros(width))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        for name, parameter in self.mlp.named_parameters():
            bound = width**-0.5
            nn.init.uniform_(parameter, -bound, bound, generator=randomness(seed, "adapter", name))

    def forward(self, embeddings: Tensor) -> Tensor:
        """[B, D] to [B, D]."""
        own = torch.sigmoid(self.mask) * embeddings
        changed: Tensor = self.mlp(own)
        return changed + own


class DisenBooth:
    """Trains LoRA on all attention layers and the adapter; text encoder and CLIP are frozen.

    The encoded prompt E never changes, so it is computed once, here. f is added to every position of it.

    Args:
        model: the base model.
        photographs: encoded, with their CLIP embeddings.
        prompt: with the identifier and the noun.
        settings: group ``disenbooth`` of ci.yaml.
        seed: of the start of LoRA and adapter.

    Raises:
        UsageError: the prompt is too long for the model.
        ModelAccessError: CLIP's embeddings have another width than the text encoder's.
    """

    def __init__(
        self, model: StableDiffusion, photographs: EncodedPhotographs, prompt: str, settings: DisenBoothConfig, seed: int
    ) -> None:
        assert photographs.embeddings is not None
        self.model = model
        self.settings = settings
        self.embeddings = photographs.embeddings
        model.require_fit([prompt], "disenbooth.prompt")
        with torch.no_grad():
            self.context = model.encode_text(model.tokenize([prompt])).float()
        width, given = self.context.shape[-1], self.embeddings.shape[-1]
        if width != given:
            raise ModelAccessError(
                f"DisenBooth adds CLIP's embedding of a photograph, {given} numbers, to the text encoder's, which are {width}",
                "set model.clip in ci.yaml to the CLIP whose text tower the base model has",
                slug="clip-of-another-width",
            )
        self.adapter = ImageAdapter(width, seed).to(model.device)
        self.lora = AttentionLoRA.untrained(model.unet, rank=settings.rank, seed=seed)
        self.lora.inject()

    def trainable(self) -> dict[str, nn.Parameter]:
        """LoRA and adapter, by name."""
        return {**self.lora.parameters(), **{f"adapter.{name}": value for name, value in self.adapter.named_parameters()}}

    def diffusion(self, batch: Batch) -> Tensor:
        """The diffusion loss with f."""
        return self._with(self._own(batch), batch)

    def loss(self, batch: Batch) -> Loss:
        """The denoising with f, with little weight that without it, and how like E the adapter's f is."""
        own = self._own(batch)
        diffusion = self._with(own, batch)
        weak = ldm_loss(*denoise(self.model, batch, self.context.to(self.model.dtype)))
        contrast = F.cosine_similarity(self.context.mean(dim=1), own, dim=-1).mean()
        total = diffusion + self.settings.weak_weight * weak + self.settings.contrast_weight * contrast
        terms = {"diffusion": diffusion, "weak": weak, "contrast": contrast}
        return Loss(total, {name: term.detach() for name, term in terms.items()})

    def result(self) -> dict[str, Tensor]:
        """LoRA; the adapter has done its work and is left behind."""
        return self.lora.tensors()

    def _own(self, batch: Batch) -> Tensor:
        """f of each sample, [B, D]."""
        own: Tensor = self.adapter(self.embeddings[batch.photographs])
        return own

    def _with(self, own: Tensor, batch: Batch) -> Tensor:
        return ldm_loss(*denoise(self.model, batch, (self.context + own.unsqueeze(1)).to(self.model.dtype)))

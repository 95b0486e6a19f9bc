"""Stage 1, Contrastive Inversion (arXiv 2508.07755, Eq. 1 and Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cictl.config import InvertConfig
from cictl.data.draws import Batch, EncodedPhotographs
from cictl.data.prompts import expand, without_auxiliary
from cictl.functional.losses import contrastive_loss, ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.stable_diffusion import StableDiffusion


class ContrastiveInversion:
    """Trains S* and one A_i* a photograph; everything else is frozen.

    Args:
        model: the base model, which knows ``tokens`` already.
        tokens: what is trained.
        photographs: encoded, with their CLIP embeddings unless the tokens have no auxiliary vectors.
        projection: CLIP's text projection, [D_shared, D_text].
        settings: group ``invert`` of ci.yaml.
        tower: CLIP's own text tower, which knows ``tokens`` too, if the base's text encoder is another (for Eq. 2).

    Raises:
        UsageError: a prompt is too long for the model.
    """

    def __init__(
        self,
        model: StableDiffusion,
        tokens: ConceptTokens,
        photographs: EncodedPhotographs,
        projection: Tensor | None,
        settings: InvertConfig,
        tower: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.photographs = photographs
        self.projection = projection
        self.settings = settings
        self.tower = tower
        self.contrastive = settings.auxiliary_vectors > 0 and settings.contrastive_weight > 0
        self.prompt_ids = torch.cat([self._tokenize(prompt, "invert.prompts") for prompt in settings.prompts])
        if self.contrastive:
            auxiliary_ids = self._tokenize(settings.contrastive_prompt, "invert.contrastive_prompt")
            self.auxiliary_ids = model.cut_behind_end(auxiliary_ids)

    def trainable(self) -> dict[str, nn.Parameter]:
        """S* and A_i*, by name."""
        parameters = {"concept": self.tokens.concept}
        if self.tokens.auxiliary.numel():
            parameters["auxiliary"] = self.tokens.auxiliary
        return parameters

    def diffusion(self, batch: Batch) -> Tensor:
        """Eq. 1 over the batch."""
        rows = batch.chosen(len(self.settings.prompts)) * len(self.photographs.keys) + batch.photographs
        return ldm_loss(*denoise(self.model, batch, self.model.encode_rows(self.prompt_ids, rows)))

    def loss(self, batch: Batch) -> Loss:
        """Eq. 1, plus the weight times Eq. 2 over all N photographs."""
        diffusion = self.diffusion(batch)
        if not self.contrastive:
            return Loss(diffusion, {"diffusion": diffusion.detach()})
        assert self.projection is not None and self.photographs.embeddings is not None
        text = self.model.text_embedding(self.auxiliary_ids, self.projection, self.tower)
        contrastive = contrastive_loss(text, self.photographs.embeddings, self.settings.temperature)
        total = diffusion + self.settings.contrastive_weight * contrastive
        return Loss(total, {"diffusion": diffusion.detach(), "contrastive": contrastive.detach()})

    def result(self) -> dict[str, Tensor]:
        """The tokens, as saved."""
        return self.tokens.tensors()

    def _tokenize(self, prompt: str, key: str) -> Tensor:
        """``prompt`` for each of the N photographs, ids [N, L]."""
        if self.tokens.auxiliary.numel() == 0:
            texts = [expand(without_auxiliary(prompt), self.tokens.concept_names)] * len(self.photographs.keys)
        else:
            texts = [
                expand(prompt, self.tokens.concept_names, self.tokens.auxiliary_names(index))
                for index in range(len(self.photographs.keys))
            ]
        self.model.require_fit(texts, key)
        return self.model.tokenize(texts)

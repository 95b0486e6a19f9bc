"""Stage 2, disentangled cross-attention fine-tuning (arXiv 2508.07755, Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cictl.config import FinetuneConfig
from cictl.data.draws import Batch, EncodedPhotographs
from cictl.data.prompts import expand
from cictl.functional.losses import ldm_loss
from cictl.methods.denoising import denoise
from cictl.methods.loss import Loss
from cictl.models.attention_layers import choose_layers
from cictl.models.attention_processors import DisentangledContext, TunedCrossAttention
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.stable_diffusion import StableDiffusion


class DisentangledFinetuning:
    """Trains K, V on S* alone, and K^a, V^a on A_i* alone.

    The tokens are frozen, so that contexts never change: they are encoded once, here, and the text encoder is not needed
    afterwards. With ``concept_learning_rate`` S* trains too, and its contexts are encoded at every step.
    Without auxiliary tokens (n = 0) there is no auxiliary pathway, and K, V train alone. With ``disentangled``
    off there is none either: K, V train on S* and A_i* in one prompt, as if Eq. 3 had not been thought of.

    Args:
        model: the base model, which knows ``tokens`` already.
        tokens: what stage 1 found.
        photographs: encoded.
        settings: group ``finetune`` of ci.yaml.

    Attributes:
        rates: learning rates other than that of K, V, by the names of :meth:`trainable`.

    Raises:
        UsageError: a prompt is too long for the model, or it has no layers as named.
    """

    def __init__(
        self, model: StableDiffusion, tokens: ConceptTokens, photographs: EncodedPhotographs, settings: FinetuneConfig
    ) -> None:
        self.model = model
        self.settings = settings
        self.tokens = tokens
        tokens.auxiliary.requires_grad_(False)
        self.rates = {"concept": settings.concept_learning_rate} if settings.concept_learning_rate else {}
        auxiliary, count = tokens.auxiliary.numel() > 0, len(photographs.keys)
        self.disentangled = auxiliary and settings.disentangled
        self.together = auxiliary and not settings.disentangled
        behind = [tokens.auxiliary_names(index) for index in range(count)] if self.together else [[]]
        ids = [self._tokenize_concept(own) for own in behind]
        self.concept_ids = torch.cat(ids)  # [prompts, L], or for each photograph so many
        with torch.no_grad():
            self.concept_contexts = torch.cat([model.encode_text(own) for own in ids])
            if self.disentangled:
                self._encode_auxiliary(count)
        self.attention = TunedCrossAttention(
            model.unet,
            model.key_values,
            auxiliary_scale=settings.auxiliary_scale if self.disentangled else None,
            train=choose_layers(model.unet, settings.layers, "finetune.layers"),
        )
        self.attention.inject()

    def trainable(self) -> dict[str, nn.Parameter]:
        """K, V and K^a, V^a of the cross-attention layers that train, by name, and S* if it does."""
        token = {"concept": self.tokens.concept} if self.rates else {}
        return {**token, **self.attention.parameters()}

    def diffusion(self, batch: Batch) -> Tensor:
        """Eq. 1 with the attention of Eq. 3."""
        prompts = len(self.settings.concept_prompts)
        rows = batch.chosen(prompts) + (batch.photographs * prompts if self.together else 0)
        concept = self.model.encode_rows(self.concept_ids, rows) if self.rates else self.concept_contexts[rows]
        context: Tensor | DisentangledContext = concept
        if self.disentangled:
            mask = None if self.auxiliary_masks is None else self.auxiliary_masks[batch.photographs]
            context = DisentangledContext(concept, self.auxiliary_contexts[batch.photographs], mask)
        return ldm_loss(*denoise(self.model, batch, context))

    def loss(self, batch: Batch) -> Loss:
        """Eq. 1, and nothing else."""
        diffusion = self.diffusion(batch)
        return Loss(diffusion, {"diffusion": diffusion.detach()})

    def result(self) -> dict[str, Tensor]:
        """The tuned K, V, and S* if it was trained; K^a and V^a have done their work and are left behind."""
        token = {"concept": self.tokens.concept.detach().cpu().contiguous()} if self.rates else {}
        return {**token, **self.attention.tensors()}

    def _tokenize_concept(self, behind: Sequence[str]) -> Tensor:
        """The prompts of S*, each with the tokens ``behind`` it, [prompts, L]."""
        prompts = [" ".join((expand(prompt, self.tokens.concept_names), *behind)) for prompt in self.settings.concept_prompts]
        self.model.require_fit(prompts, "finetune.concept_prompts")
        return self.model.tokenize(prompts)

    def _encode_auxiliary(self, count: int) -> None:
        tokens = self.tokens
        prompts = [expand(self.settings.auxiliary_prompt, (), tokens.auxiliary_names(index)) for index in range(count)]
        self.model.require_fit(prompts, "finetune.auxiliary_prompt")
        ids = self.model.tokenize(prompts)
        self.auxiliary_contexts = self.model.encode_text(ids)
        self.auxiliary_masks: Tensor | None = None
        if self.settings.auxiliary_context == "tokens":
            names = [name for index in range(count) for name in tokens.auxiliary_names(index)]
            known = torch.tensor(self.model.tokenizer.convert_tokens_to_ids(names), device=ids.device)
            self.auxiliary_masks = torch.isin(ids, known)

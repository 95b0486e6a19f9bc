"""Stage 2, disentangled cross-attention fine-tuning (arXiv 2508.07755, Eq. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cictl.config import FinetuneConfig
from cictl.data.draws import Batch, EncodedPhotographs, pick
from cictl.data.prompts import expand
from cictl.functional.losses import ldm_loss
from cictl.methods.loss import Loss
from cictl.models.attention_processors import DisentangledContext, TunedCrossAttention
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.stable_diffusion import StableDiffusion


class DisentangledFinetuning:
    """Trains K, V on S* alone, and K^a, V^a on A_i* alone; the tokens are frozen.

    The contexts never change, so they are encoded once, here, and the text encoder is not needed afterwards.
    Without auxiliary tokens (n = 0) there is no auxiliary pathway, and K, V train alone. With ``disentangled``
    off there is none either: K, V train on S* and A_i* in one prompt, as if Eq. 3 had not been thought of.

    Args:
        model: the base model, which knows ``tokens`` already.
        tokens: what stage 1 found.
        photographs: encoded.
        settings: group ``finetune`` of ci.yaml.

    Raises:
        UsageError: a prompt is too long for the model.
    """

    def __init__(
        self, model: StableDiffusion, tokens: ConceptTokens, photographs: EncodedPhotographs, settings: FinetuneConfig
    ) -> None:
        self.model = model
        self.settings = settings
        auxiliary, count = tokens.auxiliary.numel() > 0, len(photographs.keys)
        self.disentangled = auxiliary and settings.disentangled
        with torch.no_grad():
            if auxiliary and not settings.disentangled:
                own = [self._encode_concept(tokens, tokens.auxiliary_names(index)) for index in range(count)]
            else:
                own = [self._encode_concept(tokens)] * count
            self.concept_contexts = torch.stack(own)  # [N, prompts, T, D]
            if self.disentangled:
                self._encode_auxiliary(tokens, count)
        self.attention = TunedCrossAttention(
            model.unet, model.key_values, auxiliary_scale=settings.auxiliary_scale if self.disentangled else None
        )
        self.attention.inject()

    def trainable(self) -> dict[str, nn.Parameter]:
        """K, V and K^a, V^a of every cross-attention layer, by name."""
        return self.attention.parameters()

    def loss(self, batch: Batch) -> Loss:
        """Eq. 1 with the attention of Eq. 3."""
        prompts = self.concept_contexts.shape[1]
        rows = [index * prompts + int(choice * prompts) for index, choice in zip(batch.photographs, batch.choices, strict=True)]
        noisy = self.model.add_noise(batch.latents, batch.noise, batch.timesteps)
        target = self.model.target(batch.latents, batch.noise, batch.timesteps)
        concept = pick(self.concept_contexts.flatten(0, 1), rows)
        context: Tensor | DisentangledContext = concept
        if self.disentangled:
            mask = None if self.auxiliary_masks is None else pick(self.auxiliary_masks, batch.photographs)
            context = DisentangledContext(concept, pick(self.auxiliary_contexts, batch.photographs), mask)
        diffusion = ldm_loss(target, self.model.predict(noisy, batch.timesteps, context))
        return Loss(diffusion, {"diffusion": diffusion.detach()})

    def result(self) -> dict[str, Tensor]:
        """The tuned K, V; K^a and V^a have done their work and are left behind."""
        return self.attention.tensors()

    def _encode_concept(self, tokens: ConceptTokens, behind: Sequence[str] = ()) -> Tensor:
        """The prompts of S*, each with the tokens ``behind`` it, [prompts, T, D]."""
        prompts = [" ".join((expand(prompt, tokens.concept_names), *behind)) for prompt in self.settings.concept_prompts]
        self.model.require_fit(prompts, "finetune.concept_prompts")
        return self.model.encode_text(self.model.tokenize(prompts))

    def _encode_auxiliary(self, tokens: ConceptTokens, count: int) -> None:
        prompts = [expand(self.settings.auxiliary_prompt, (), tokens.auxiliary_names(index)) for index in range(count)]
        self.model.require_fit(prompts, "finetune.auxiliary_prompt")
        ids = self.model.tokenize(prompts)
        self.auxiliary_contexts = self.model.encode_text(ids)
        self.auxiliary_masks: Tensor | None = None
        if self.settings.auxiliary_context == "tokens":
            names = [name for index in range(count) for name in tokens.auxiliary_names(index)]
            known = torch.tensor(self.model.tokenizer.convert_tokens_to_ids(names), device=ids.device)
            self.auxiliary_masks = torch.isin(ids, known)

"""Stable Diffusion 1.x, or anything with its parts: encode, predict, decode. Its weights are never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cictl.data.prompts import as_written, decoded_as_written
from cictl.errors import ModelAccessError, UsageError
from cictl.functional.losses import diffuse, prediction_target
from cictl.models.attention_layers import KeysAndValues, keys_and_values, use_plain_attention
from cictl.models.base_files import KEY_VALUE, load_networks, load_small
from cictl.models.concept_tokens import ConceptTokens, eject_tokens, inject_tokens
from cictl.models.convolutions import keep_no_input, multiply_at_few_positions
from cictl.models.locate import Located
from cictl.models.pretrained import quiet_libraries

if TYPE_CHECKING:
    from cictl.models.attention_processors import DisentangledContext


@dataclass
class StableDiffusion:
    """A base model, frozen, in evaluation mode.

    Attributes:
        located: where it came from.
        tokenizer, text_encoder, vae, unet: the parts, as diffusers and transformers have them.
        scheduler_config: of the noise schedule that it was trained with.
        key_values: the cross-attention's W_k, W_v in fp32 on the CPU, whatever the UNet runs in.
        alphas_cumprod: a_t of the schedule, [T] in fp32 on ``device``.
        device: where UNet and text encoder are.
        dtype: their precision.
        unfused: why a GPU has no kernels of our own, though it was to have them; nothing if it has, or no Triton is there.
    """

    located: Located
    tokenizer: Any
    text_encoder: Any
    vae: Any
    unet: Any
    scheduler_config: Mapping[str, Any]
    key_values: dict[str, Tensor]
    alphas_cumprod: Tensor
    device: torch.device
    dtype: torch.dtype
    unfused: str = ""

    @classmethod
    def load(cls, located: Located, device: torch.device, dtype: torch.dtype, *, fused: bool = False) -> StableDiffusion:
        """Load from a folder in diffusers layout, or from one file; the VAE stays on the CPU until it is asked for.

        Args:
            fused: whether a GPU may have kernels of our own.

        Raises:
            ModelAccessError: a part is missing, incomplete, or of another kind, or does not fit the others.
        """
        quiet_libraries()
        parts = load_networks(located)
        unet, text_encoder, vae = parts["unet"], parts["text_encoder"], parts["vae"]
        tokenizer, scheduler = load_small(located)
        rows = text_encoder.get_input_embeddings().num_embeddings
        if len(tokenizer) > rows:
            raise ModelAccessError(
                f"{located.id}: its tokenizer knows {len(tokenizer)} tokens, its text encoder only {rows}",
                "take tokenizer/ and text_encoder/ from one and the same model",
                slug="model-tokenizer-too-large",
            )
        # Not every tokenizer's config says how much the text encoder reads.
        tokenizer.model_max_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
        key_values = {
            name: weight.detach().float().clone() for name, weight in unet.named_parameters() if name.endswith(KEY_VALUE)
        }
        for part in (unet, text_encoder, vae):
            part.eval().requires_grad_(False)
        unet.to(device, dtype)
        use_plain_attention(unet)
        return cls(
            located=located,
            tokenizer=tokenizer,
            text_encoder=text_encoder.to(device, dtype),
            vae=vae,
            unet=unet,
            scheduler_config=dict(scheduler.config),
            key_values=key_values,
            alphas_cumprod=scheduler.alphas_cumprod.to(device, torch.float32),
            device=device,
            dtype=dtype,
            unfused=_speed_up(unet, device, dtype, fused),
        )

    # -- text ---------------------------------------------------------------------------------------

    def add_tokens(self, tokens: ConceptTokens) -> None:
        """Make tokenizer and text encoder know ``tokens`` (see :func:`inject_tokens`)."""
        self.tokenizer = inject_tokens(self.tokenizer, self.text_encoder, tokens)

    def eject_tokens(self) -> None:
        """Give the text encoder its own table back."""
        eject_tokens(self.text_encoder)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to ids [B, L], padded to the L that the model was trained with (77), longer ones cut."""
        length = self.tokenizer.model_max_length
        encoded = self.tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return encoded.input_ids.to(self.device)

    def overlong(self, prompt: str) -> str:
        """The end of ``prompt`` that does not fit into the context, as it was written, or nothing."""
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        lost = ids[self.tokenizer.model_max_length - 2 :]
        # A copied CLIP tokenizer of transformers 5 leaves the marks of word ends in what it decodes.
        return decoded_as_written(str(self.tokenizer.decode(lost)).replace("</w>", " ")) if lost else ""

    def require_fit(self, prompts: Sequence[str], key: str) -> None:
        """Refuse training prompts that would be cut, since a token could be lost.

        Raises:
            UsageError: naming the prompt and what it would lose.
        """
        for prompt in prompts:
            if lost := self.overlong(prompt):
                raise UsageError(
                    f"{key}: {as_written(prompt)!r} is longer than the {self.tokenizer.model_max_length} tokens that the model "
                    f"reads; it would lose {lost!r}",
                    f"shorten {key} in ci.yaml, or take a smaller invert.auxiliary_vectors",
                    slug="prompt-too-long",
                )

    def encode_text(self, ids: Tensor) -> Tensor:
        """Ids [B, L] to the context that the cross-attention reads, [B, L, D]."""
        return self.text_encoder(input_ids=ids).last_hidden_state

    def encode_rows(self, ids: Tensor, rows: Tensor) -> Tensor:
        """The contexts of ``rows`` [B] of ids [P, L], as [B, L, D].

        On a CPU a row that comes twice is encoded once; a GPU would have to say first how many there are.
        """
        if rows.device.type == "cpu":
            distinct = list(dict.fromkeys(rows.tolist()))
            if len(distinct) < len(rows):
                return self.encode_text(ids[distinct])[[distinct.index(row) for row in rows.tolist()]]
        return self.encode_text(ids[rows])

    def cut_behind_end(self, ids: Tensor) -> Tensor:
        """Ids [B, L] up to the last of their first end-of-text tokens; what stands behind it is padding.

        The text encoder is causal, so that :meth:`text_embedding` is the same but for rounding. The UNet's attention reads
        the padding too, whose encoding depends on the prompt: a context is never cut.
        """
        ends = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        return ids[:, : int(ends.max()) + 1]

    def text_embedding(self, ids: Tensor, projection: Tensor, tower: nn.Module | None = None) -> Tensor:
        """tau_T: ids [B, L] to CLIP text embeddings [B, D_shared], in fp32, by ``tower`` or else the text encoder.

        Pooled at the first end-of-text token itself. The model's own pooling takes the largest id where its
        config says eos_token_id 2, as Stable Diffusion's does, and a new token's id is larger.
        """
        context = tower(input_ids=ids).last_hidden_state if tower else self.encode_text(ids)
        end = (ids == self.tokenizer.eos_token_id).int().argmax(dim=1)
        pooled = context[torch.arange(len(ids), device=ids.device), end]
        return pooled.float() @ projection.T

    def free_text_encoder(self) -> None:
        """Let the text encoder leave the GPU, once everything is encoded."""
        self.text_encoder.to("cpu")

    # -- pictures -----------------------------------------------------------------------------------

    def encode_pictures(self, pictures: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """The VAE's posterior for each picture [3, R, R] in [-1, 1]: its mean and std, both scaled.

        One picture at a time, in fp32; the VAE returns to the CPU afterwards.

        Returns:
            Two tensors [N, C, R/f, R/f] in fp32 on ``device``.
        """
        vae = self.vae.to(self.device, torch.float32)
        scale = vae.config.scaling_factor
        means, stds = [], []
        with torch.no_grad():
            for pixels in pictures:
                posterior = vae.encode(torch.from_numpy(pixels).unsqueeze(0).to(self.device)).latent_dist
                means.append(posterior.mean * scale)
                stds.append(posterior.std * scale)
        self.vae.to("cpu")
        return torch.cat(means), torch.cat(stds)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents [B, C, h, w] in fp32 to pictures [B, H, W, 3] of bytes, one at a time."""
        vae = self.vae.to(self.device, torch.float32)
        pictures = []
        with torch.no_grad():
            for latent in latents / vae.config.scaling_factor:
                decoded = vae.decode(latent.unsqueeze(0)).sample[0].clamp(-1, 1)
                pictures.append(((decoded + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())
        return np.stack(pictures)

    def free_vae(self) -> None:
        """Let the VAE leave the GPU."""
        self.vae.to("cpu")

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """[C, h, w] of a picture of this size."""
        return self.vae.config.latent_channels, height // self.reduction, width // self.reduction

    @property
    def reduction(self) -> int:
        """f, the pixels a side of a latent position."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    # -- noise --------------------------------------------------------------------------------------

    @property
    def timesteps(self) -> int:
        """T, the number of timesteps of the noise schedule."""
        return len(self.alphas_cumprod)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """z_t from z_0 [B, C, h, w], eps and t [B]."""
        return diffuse(latents, noise, self.alphas_cumprod[timesteps])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet is to predict: noise or velocity, as the model was trained."""
        kind = self.scheduler_config["prediction_type"]
        return prediction_target(latents, noise, self.alphas_cumprod[timesteps], kind)

    def predict(self, noisy: Tensor, timesteps: Tensor, context: Tensor | KeysAndValues | DisentangledContext) -> Tensor:
        """The UNet's prediction for z_t [B, C, h, w] and t [B].

        Args:
            context: [B, L, D], what :meth:`read` makes of it, or a disentangled one.
        """
        if isinstance(context, Tensor):
            context = context.to(self._unet_dtype)
        return self.unet(noisy.to(self._unet_dtype), timesteps, encoder_hidden_states=context).sample

    def read(self, context: Tensor) -> KeysAndValues:
        """What the UNet as it is now reads of ``context`` [B, L, D], for many predictions with one and the same."""
        return keys_and_values(self.unet, context.to(self._unet_dtype))

    @property
    def _unet_dtype(self) -> torch.dtype:
        """That of a tuned UNet is fp32, whatever the base's is."""
        dtype: torch.dtype = self.unet.conv_in.weight.dtype
        return dtype


def _speed_up(unet: Any, device: torch.device, dtype: torch.dtype, fused: bool) -> str:
    """Other ways to the same numbers but for rounding, where they were measured to be faster; why one was not gone."""
    if device.type == "cpu" and dtype == torch.float32:
        multiply_at_few_positions(unet)
    if device.type == "cuda":
        keep_no_input(unet)
        if fused and torch.version.cuda and find_spec("triton"):
            from cictl.models.fused import fuse, what_fails_on

            if problem := what_fails_on(device):
                return problem
            fuse(unet)
    return ""

"""CLIP (Radford et al. 2021, arXiv 2103.00020): pictures and prompts in one space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cictl.errors import ModelAccessError
from cictl.evaluation.loading import embed, load_processor, loaded
from cictl.models.locate import Located, tokenizer_folder
from cictl.models.tokenizer import load_tokenizer

_HINT = "set evaluate.clip to a whole CLIP model such as openai/clip-vit-large-patch14, or to null to leave its figures out"


def embed_with_clip(
    located: Located, sets: Iterable[Iterable[Image.Image]], texts: Sequence[str], device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """CLIP's embeddings of sets of pictures and of texts. The network is loaded, used and freed.

    Pictures are prepared by the model's own image processor. Texts that are longer than the model reads are cut.

    Returns:
        Of each set [P, D], and [T, D], in fp32 on the CPU, not normalised; the last bits do not depend on the other sets.

    Raises:
        ModelAccessError: the folder holds no whole CLIP, or one whose tokenizer is not at hand.
    """
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # the one without torchvision

    processor = load_processor(CLIPImageProcessorPil, located, _HINT)
    tokenizer = _load_tokenizer(located)
    with loaded(CLIPModel, located, _HINT, device) as network:
        known = network.config.text_config.vocab_size
        if len(tokenizer) != known:
            raise ModelAccessError(
                f"{located.id} knows {known:,} tokens, and its tokenizer gives {len(tokenizer):,}",
                "put the model's own tokenizer into its folder (vocab.json and merges.txt), or take another evaluate.clip",
                slug="metric-tokenizer-of-another",
            )
        pictures = [embed(own, processor, _image_tower(network), device) for own in sets]
        return pictures, _embed_texts(network, tokenizer, texts, device)


def _image_tower(network: Any) -> Callable[[Tensor], Tensor]:
    def tower(pixels: Tensor) -> Tensor:
        return network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)

    return tower


@torch.no_grad()
def _embed_texts(network: Any, tokenizer: Any, texts: Sequence[str], device: torch.device) -> Tensor:
    """Pooled at the first end-of-text token by ourselves: what the library pools at depends on the config's eos_token_id."""
    length = network.config.text_config.max_position_embeddings
    found = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=length, return_tensors="pt").input_ids.to(device)
        context = network.text_model(input_ids=ids).last_hidden_state
        end = (ids[0] == tokenizer.eos_token_id).int().argmax()
        found.append(network.text_projection(context[:, end]).float().cpu())
    return torch.cat(found)


def _load_tokenizer(located: Located) -> Any:
    try:
        return load_tokenizer(tokenizer_folder(located))
    except (OSError, ValueError) as error:
        raise ModelAccessError(
            f"the tokenizer of {located.id} cannot be read ({error})", _HINT, slug="metric-tokenizer-unreadable"
        ) from None

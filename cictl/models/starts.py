"""Words that photographs suggest: where S* and the A_i* can start, found with frozen CLIP and without training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.models.stable_diffusion import StableDiffusion

_PROMPT = "a photo of {}"
_WORD = re.compile(r"([a-z]{3,})</w>")
_NEAREST = 3  # words whose mean is a start
_AT_A_TIME = 512


@dataclass(frozen=True)
class Suggested:
    """Words, the best first: of what the photographs share, and of each photograph, in their order."""

    concept: list[str]
    auxiliary: list[list[str]]


def whole_words(tokenizer: Any) -> list[str]:
    """The words of three letters or more that are read as one token, in the order of the vocabulary."""
    vocabulary = tokenizer.get_vocab()
    found = (_WORD.fullmatch(token) for token in sorted(vocabulary, key=vocabulary.__getitem__))
    words = [match[1] for match in found if match]
    read = tokenizer(words, add_special_tokens=False).input_ids  # for not every token is reached by the merges
    return [word for word, ids in zip(words, read, strict=True) if len(ids) == 1]


def embed_words(model: StableDiffusion, words: Sequence[str], projection: Tensor, tower: nn.Module | None = None) -> Tensor:
    """CLIP's text embedding of "a photo of WORD" for each of V words, [V, D_shared] in fp32, of norm 1.

    Prompts are cut behind their end-of-text token: the text tower is causal, so that what follows changes nothing, and most of
    the work would go there.

    Args:
        projection: CLIP's text projection, [D_shared, D_text].
        tower: CLIP's own text tower, if the base's text encoder is another.
    """
    embedded = []
    with torch.no_grad():
        for first in range(0, len(words), _AT_A_TIME):
            ids = model.tokenize([_PROMPT.format(word) for word in words[first : first + _AT_A_TIME]])
            embedded.append(model.text_embedding(model.cut_behind_end(ids), projection, tower))
    return F.normalize(torch.cat(embedded), dim=-1)


def suggest(words: Sequence[str], texts: Tensor, images: Tensor) -> Suggested:
    """For S* the words whose cosine to the photographs is largest on average; for A_i* those that exceed that average most.

    Args:
        texts: embeddings of the V words, [V, D], of norm 1.
        images: tau_I(x_i), CLIP image embeddings of the photographs, [N, D].
    """
    cosines = F.normalize(images.float(), dim=-1) @ texts.T  # [N, V]
    shared = cosines.mean(0)
    return Suggested(_best(words, shared), [_best(words, own) for own in cosines - shared])


def _best(words: Sequence[str], scores: Tensor) -> list[str]:
    return [words[index] for index in scores.topk(min(_NEAREST, len(words))).indices.tolist()]

"""New tokens of a frozen text encoder: S* and one auxiliary token A_i* for each photograph."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cictl.config import AUTO_START
from cictl.data.draws import randomness
from cictl.data.prompts import auxiliary_names, token_names
from cictl.errors import UsageError


class ConceptTokens(nn.Module):
    """The vectors of S* and of the A_i*, the only parameters of stage 1.

    They are parameters of their own beside the frozen table of the vocabulary, never rows of it: the
    gradient reaches them and nothing else, and the optimizer keeps moments for them alone.

    Attributes:
        concept: S*, [m, D] in fp32.
        auxiliary: A_i*, [N, n, D] in fp32, in the order of ``keys``; N or n may be 0.
    """

    def __init__(self, name: str, concept: Tensor, keys: Sequence[str] = (), auxiliary: Tensor | None = None) -> None:
        super().__init__()
        if auxiliary is None:
            auxiliary = concept.new_zeros(len(keys), 0, concept.shape[1])
        self.name = name
        self.keys = tuple(keys)
        self.concept = nn.Parameter(concept.detach().float().clone())
        self.auxiliary = nn.Parameter(auxiliary.detach().float().clone())

    @property
    def concept_names(self) -> list[str]:
        """The stored tokens of S*, one a vector."""
        return token_names(self.name, self.concept.shape[0])

    def auxiliary_names(self, index: int) -> list[str]:
        """The stored tokens of the auxiliary token of photograph ``index``, one a vector."""
        return auxiliary_names(self.keys[index], self.auxiliary.shape[1])

    @property
    def names(self) -> list[str]:
        """All stored tokens, in the order of :meth:`rows`."""
        auxiliary = [name for index in range(len(self.keys)) for name in self._names_or_none(index)]
        return [*self.concept_names, *auxiliary]

    def _names_or_none(self, index: int) -> list[str]:
        return self.auxiliary_names(index) if self.auxiliary.shape[1] else []

    def rows(self) -> Tensor:
        """All vectors, [m + N n, D]."""
        return torch.cat([self.concept, self.auxiliary.flatten(0, 1)])

    def tensors(self) -> dict[str, Tensor]:
        """What is saved: ``concept`` [m, D], and ``auxiliary.<key>`` [n, D] for each photograph."""
        saved = {"concept": self.concept.detach().cpu().contiguous()}
        if self.auxiliary.shape[1]:
            for key, vectors in zip(self.keys, self.auxiliary.detach().cpu(), strict=True):
                saved[f"auxiliary.{key}"] = vectors.contiguous()
        return saved

    @classmethod
    def from_tensors(cls, name: str, tensors: Mapping[str, Tensor]) -> ConceptTokens:
        """The tokens that :meth:`tensors` described."""
        keys = sorted(key.removeprefix("auxiliary.") for key in tensors if key.startswith("auxiliary."))
        auxiliary = torch.stack([tensors[f"auxiliary.{key}"] for key in keys]) if keys else None
        return cls(name, tensors["concept"], keys, auxiliary)


class TokenTable(nn.Module):
    """The vocabulary's frozen table, and behind its last row the vectors of a :class:`ConceptTokens`."""

    def __init__(self, vocabulary: nn.Module, tokens: ConceptTokens, first_id: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.tokens = tokens
        self.first_id = first_id

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to vectors [B, L, D]."""
        new = ids >= self.first_id
        known: Tensor = self.vocabulary(ids.masked_fill(new, 0))
        learned = F.embedding((ids - self.first_id).clamp(min=0), self.tokens.rows()).to(known.dtype)
        return torch.where(new.unsqueeze(-1), learned, known)


def inject_tokens(tokenizer: Any, text_encoder: Any, tokens: ConceptTokens) -> Any:
    """Make ``text_encoder`` know ``tokens``.

    Returns:
        A copy of ``tokenizer`` that knows their names; the original is left alone.

    Raises:
        UsageError: a name is in the vocabulary already, so that it would hijack an existing word.
    """
    extended = copy.deepcopy(tokenizer)
    first_id = len(extended)
    for name in tokens.names:
        before = len(extended)
        extended.add_tokens([_added_token(name)])
        if len(extended) != before + 1:
            raise UsageError(
                f"the token {name} is in the vocabulary of the base model already",
                "choose another concept.name in ci.yaml",
                slug="name-in-vocabulary",
            )
    vocabulary = text_encoder.get_input_embeddings()
    device = vocabulary.weight.device
    text_encoder.set_input_embeddings(TokenTable(vocabulary, tokens.to(device), first_id))
    return extended


def eject_tokens(text_encoder: Any) -> None:
    """Give ``text_encoder`` its own table back; it is then what it was before :func:`inject_tokens`."""
    table = text_encoder.get_input_embeddings()
    if isinstance(table, TokenTable):
        text_encoder.set_input_embeddings(table.vocabulary)


def initial_tokens(
    tokenizer: Any,
    text_encoder: Any,
    *,
    name: str,
    vectors: int,
    start: str,
    keys: Sequence[str],
    auxiliary_vectors: int,
    auxiliary_start: str | Sequence[str],
    seed: int,
) -> ConceptTokens:
    """S* and A_i* before training.

    ``auto`` draws each vector from a normal distribution with the mean and the spread that the vocabulary has
    in each dimension, and gives it the norm of an ordinary row; it depends on the seed and, for A_i*, on the
    photograph's key. A word gives its own vector (the mean of its vectors, if it has several), several words their mean.

    Args:
        auxiliary_start: of all A_i*, or of each, in the order of ``keys``.

    Raises:
        UsageError: a start is no word.
    """
    table = text_encoder.get_input_embeddings().weight.detach().float().cpu()
    concept = [_start(start, tokenizer, table, seed, "concept", index) for index in range(vectors)]
    own_starts = [auxiliary_start] * len(keys) if isinstance(auxiliary_start, str) else auxiliary_start
    auxiliary = [
        torch.stack([_start(own, tokenizer, table, seed, key, index) for index in range(auxiliary_vectors)])
        for key, own in zip(keys, own_starts, strict=True)
        if auxiliary_vectors
    ]
    return ConceptTokens(name, torch.stack(concept), keys, torch.stack(auxiliary) if auxiliary else None)


def require_words(tokenizer: Any, start: str, key: str) -> None:
    """Refuse a start in which there is a word that the model reads as little more than its letters, less than two a token.

    Raises:
        UsageError: naming these words.
    """
    read = {word: tokenizer(word, add_special_tokens=False).input_ids for word in _words(start)} if start != AUTO_START else {}
    if unknown := [word for word, ids in read.items() if len(ids) > 1 and len(word) < 2 * len(ids)]:
        raise UsageError(
            f"{key}: the base model knows no {' and no '.join(map(repr, unknown))}, and would read letters",
            f"set {key} in ci.yaml to other words, to photographs, or to auto",
            slug="start-unknown",
        )


def _start(start: str, tokenizer: Any, table: Tensor, seed: int, *names: object) -> Tensor:
    if start == AUTO_START:
        noise = torch.randn(table.shape[1], generator=randomness(seed, "start", *names))
        vector = table.mean(0) + table.std(0) * noise
        return vector * (table.norm(dim=1).median() / vector.norm())
    read = [tokenizer(word, add_special_tokens=False).input_ids for word in _words(start)]
    if not read or any(not ids or tokenizer.unk_token_id in ids for ids in read):
        raise UsageError(
            f"the start {start!r} is not a word that the base model knows",
            "set concept.start (or the start that the method has of its own) in ci.yaml to an ordinary word, or to auto",
            slug="start-not-a-word",
        )
    return torch.stack([table[ids].mean(0) for ids in read]).mean(0)


def _words(start: str) -> list[str]:
    return start.replace(",", " ").split()


def _added_token(name: str) -> Any:
    from tokenizers import AddedToken

    # Not normalized: CLIP's normalizer lower-cases; special: never split, whatever stands beside it.
    return AddedToken(name, normalized=False, special=True)

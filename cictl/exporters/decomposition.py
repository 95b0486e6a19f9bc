"""The best approximation of a change of weights by a product of two narrow matrices (Eckart & Young 1936)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.exporters.content import DTYPES, Exportable, Options, changes, percent, relative_error

KEPT_ENERGY = 0.99


@dataclass(frozen=True)
class LowRank:
    """down [r, in] and up [out, r]; their product up @ down stands for a weight's change."""

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]


class Decomposition(NamedTuple):
    """left [out, k] diag(values [k]) right [k, in], the values falling, all in fp64."""

    left: Tensor
    values: Tensor
    right: Tensor


@lru_cache(maxsize=1)  # three formats of one export need them
def factors_of(source: Exportable, rank: int | None) -> Mapping[str, LowRank]:
    """The factors of each change by the base's name of the weight, all of one rank.

    Where modules have ranks and alphas of their own, diffusers 0.42 takes the alphas of attention layers for
    those of other modules, and draws with a wrong strength.

    Args:
        rank: None is the smallest that keeps :data:`KEPT_ENERGY` of every change.
    """
    parts = {name: decompose(change) for name, change in changes(source).items()}
    largest = max(len(part.values) for part in parts.values())
    chosen = rank or max(rank_for_energy(part.values, KEPT_ENERGY) for part in parts.values())
    return {name: low_rank(part, min(chosen, largest)) for name, part in parts.items()}


def decompose(change: Tensor) -> Decomposition:
    """The singular value decomposition of ``change`` [out, in].

    The sign of a pair of vectors is free; here the largest entry of each on the left is positive, whatever the library.
    """
    left, values, right = torch.linalg.svd(change.double(), full_matrices=False)
    sign = left.gather(0, left.abs().argmax(0, keepdim=True)).sign()
    return Decomposition(left * sign, values, right * sign.T)


def rank_for_energy(values: Tensor, share: float) -> int:
    """The smallest r >= 1 for which the first r singular values hold ``share`` of the sum of squares."""
    energy = values.square().cumsum(0)
    return 1 + int((energy < share * energy[-1]).sum())


def low_rank(part: Decomposition, rank: int) -> LowRank:
    """The first ``rank`` terms, each singular value shared equally between both factors; zeros where there are fewer."""
    root = part.values[:rank].sqrt()
    missing = rank - len(root)
    down, up = root[:, None] * part.right[:rank], part.left[:, :rank] * root
    return LowRank(F.pad(down, (0, 0, 0, missing)).float(), F.pad(up, (0, missing)).float())


def describe(source: Exportable, options: Options) -> str:
    """The rank, how much of the energy it keeps, and the relative error, as a file in ``options.dtype`` has it."""
    factors, dtype = factors_of(source, options.rank), DTYPES[options.dtype]
    products = {name: pair.up.to(dtype).double() @ pair.down.to(dtype).double() for name, pair in factors.items()}
    error = relative_error(products, changes(source))
    rank = next(iter(factors.values())).rank
    kept = percent(max(0.0, 1 - error**2))
    said = f"rank {rank} in {len(factors)} modules, keeps {kept} of the change's energy, relative error {percent(error)}"
    numbers = sum(pair.down.numel() + pair.up.numel() for pair in factors.values())
    whole = sum(weight.numel() for weight in source.key_values.values())
    return said if numbers < whole else f"{said}; lycoris is smaller, and exact"

"""What every method returns from a step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """What a step goes down, and the unweighted terms that it is made of, detached."""

    total: Tensor
    terms: dict[str, Tensor]

"""Eq. 3 of Contrastive Inversion (arXiv 2508.07755)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def disentangled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    auxiliary_key: Tensor,
    auxiliary_value: Tensor,
    scale: float,
    auxiliary_mask: Tensor | None = None,
) -> Tensor:
    """Eq. 3: f = Attn(Q, K, V) + lambda Attn(Q, K^a, V^a).

    Shapes: B pictures, H heads, L positions of the picture, T and T^a of the two contexts, D a head.

    Args:
        query: Q, [B, H, L, D].
        key, value: K, V, which see S* alone, [B, H, T, D].
        auxiliary_key, auxiliary_value: K^a, V^a, which see A_i* alone, [B, H, T^a, D].
        scale: lambda; 0 gives plain attention, bit for bit.
        auxiliary_mask: True where the auxiliary context may be attended, [B, T^a]; None is everywhere.

    Returns:
        f, [B, H, L, D].
    """
    concept = F.scaled_dot_product_attention(query, key, value)
    if scale == 0:
        return concept
    mask = None if auxiliary_mask is None else auxiliary_mask[:, None, None, :]
    auxiliary = F.scaled_dot_product_attention(query, auxiliary_key, auxiliary_value, attn_mask=mask)
    return concept + scale * auxiliary

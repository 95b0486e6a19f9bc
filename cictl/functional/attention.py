"""Eq. 3 of Contrastive Inversion (arXiv 2508.07755), and the heat maps of cross-attention, as in its Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


def attention_probabilities(query: Tensor, key: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) (Vaswani et al. 2017, Eq. 1): how much each position of the picture attends to each token.

    Args:
        query: Q, [..., L, D].
        key: K, [..., T, D].

    Returns:
        [..., L, T] in fp32; the sum over the tokens is 1.
    """
    return (query.float() @ key.float().transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(dim=-1)


def mean_over_layers(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """The mean of layers' attention maps, each enlarged to ``size`` first, bilinearly.

    Means over heads, layers and denoising steps are what Prompt-to-Prompt shows (Hertz et al. 2022, arXiv 2208.01626,
    Sec. 3) of the layers of one resolution, and DAAM (Tang et al. 2022, arXiv 2210.04885), as a sum, of all, enlarged.
    Bilinear weights are not negative and sum to 1, so that at every position the tokens' shares still do.

    Args:
        maps: of each layer, [T, h, w] in fp32, with h and w of its own.
        size: height and width of what is returned.

    Returns:
        [T, *size].
    """
    enlarged = [F.interpolate(layer.unsqueeze(0), size, mode="bilinear", align_corners=False)[0] for layer in maps]
    return torch.stack(enlarged).mean(dim=0)


def token_map(maps: Tensor, positions: Sequence[int]) -> Tensor:
    """The heat map of a token of several vectors: the sum over its vectors, which is what is attended to it in all.

    Args:
        maps: [T, H, W].
        positions: of the token's vectors in the prompt.

    Returns:
        [H, W], each between 0 and 1.
    """
    return maps[list(positions)].sum(dim=0)

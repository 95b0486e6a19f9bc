"""Eq. 1 and Eq. 2 of Contrastive Inversion (arXiv 2508.07755), Eq. 1 under a mask, and what the network is to predict."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ldm_loss(target: Tensor, prediction: Tensor) -> Tensor:
    """Eq. 1: E || eps - eps_theta(z_t, t, c) ||^2, with w_t = 1.

    Args:
        target: what was to be predicted, noise or velocity, [B, C, H, W].
        prediction: what the network said, [B, C, H, W].

    Returns:
        The mean over all elements, a scalar in fp32.
    """
    return F.mse_loss(prediction.float(), target.float())


def masked_ldm_loss(target: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
    """Eq. 1 where ``mask`` is 1: the mean over what it leaves of each sample, and of these means over the batch.

    Args:
        target, prediction: as for :func:`ldm_loss`, [B, C, H, W].
        mask: zeros and ones, with a one in each sample, [B, 1, H, W].

    Returns:
        A scalar in fp32.
    """
    errors = (prediction.float() - target.float()).square() * mask
    kept = mask.sum(dim=(1, 2, 3)) * target.shape[1]
    return (errors.sum(dim=(1, 2, 3)) / kept).mean()


def contrastive_loss(text: Tensor, images: Tensor, temperature: float = 1.0) -> Tensor:
    """Eq. 2: sum_i -log( exp(cos(t_i, v_i) / T) / sum_j exp(cos(t_i, v_j) / T) ).

    The sum in the denominator runs over all photographs, also where j = i. With N equal embeddings the
    loss is N log N, whatever the temperature; with N = 1 it is identically zero.

    Args:
        text: tau_T(A_i*), CLIP text embeddings of the auxiliary tokens, [N, D].
        images: tau_I(x_j), CLIP image embeddings of the photographs, in the same order, [N, D].
        temperature: T; the paper states none, which is 1.

    Returns:
        The sum over the N photographs, a scalar in fp32.
    """
    cosines = F.normalize(text.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T
    own = torch.arange(len(text), device=text.device)
    return F.cross_entropy(cosines / temperature, own, reduction="sum")


def diffuse(clean: Tensor, noise: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) eps (Ho et al. 2020, Eq. 4).

    Args:
        clean: z_0, [B, C, H, W].
        noise: eps, of the same shape.
        alphas_cumprod: a_t of each sample, [B].
    """
    signal, spread = _coefficients(alphas_cumprod)
    return signal * clean + spread * noise


def prediction_target(clean: Tensor, noise: Tensor, alphas_cumprod: Tensor, prediction_type: str) -> Tensor:
    """What the network is to predict: eps, or v = sqrt(a_t) eps - sqrt(1 - a_t) z_0 (Salimans & Ho 2022).

    Args:
        clean, noise, alphas_cumprod: as for :func:`diffuse`.
        prediction_type: epsilon (noise) or v_prediction (velocity), as the scheduler's config says.

    Raises:
        ValueError: for any other prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        signal, spread = _coefficients(alphas_cumprod)
        return signal * noise - spread * clean
    raise ValueError(f"prediction type {prediction_type!r}: only epsilon and v_prediction are known")


def _coefficients(alphas_cumprod: Tensor) -> tuple[Tensor, Tensor]:
    alphas = alphas_cumprod.view(-1, 1, 1, 1)
    return alphas.sqrt(), (1 - alphas).sqrt()

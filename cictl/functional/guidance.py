"""How a picture is guided while it is denoised: towards its prompt, and away from what single photographs hold."""

from __future__ import annotations

from torch import Tensor


def classifier_free_guidance(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2021, arXiv 2207.12598, Eq. 6), as eps_0 + s (eps_c - eps_0).

    Args:
        unconditional: eps_0, predicted with the negative prompt, [B, C, h, w].
        conditional: eps_c, predicted with the prompt, [B, C, h, w].
        scale: s, which is the paper's w + 1; 1 gives eps_c but for rounding.
    """
    return unconditional + scale * (conditional - unconditional)


def steer_away(negative: Tensor, auxiliary: Tensor, weight: float) -> Tensor:
    """What guidance leads away from: (1 - w) c_0 + w mean_i c(A_i*). Not in the paper, whose w is 0.

    The A_i* hold what each photograph has of its own, so that guidance also leads away from what is not shared. The
    mean is of encodings, not of predictions: it costs nothing in a denoising step.

    Args:
        negative: c_0, the encoding of the negative prompt, [1, T, D].
        auxiliary: the encodings of "A photo of A_i*", [N, T, D].
        weight: w.

    Returns:
        [1, T, D].
    """
    return (1 - weight) * negative + weight * auxiliary.mean(dim=0, keepdim=True)

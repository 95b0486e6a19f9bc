"""The figures of evaluation, as pure functions of embeddings. Each names its source.

Embeddings need not be normalised. Cosines lie in [-1, 1] and are given as they are: not scaled, and not cut at 0.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """The cosine similarity of each row of ``one`` [N, D] with each row of ``other`` [M, D], [N, M] in fp32."""
    return F.normalize(one.float(), dim=-1) @ F.normalize(other.float(), dim=-1).T


def image_similarity(pictures: Tensor, photographs: Tensor) -> Tensor:
    """The mean cosine similarity of each picture with all photographs.

    With DINO's embeddings it is DreamBooth's subject fidelity "DINO", with CLIP's its "CLIP-I" (Ruiz et al. 2023,
    arXiv 2208.12242, Sec. 4.1). With those of DINOv2 (Oquab et al. 2023, arXiv 2304.07193) it is the image similarity
    of Contrastive Inversion's Table 1.

    Args:
        pictures: embeddings of the generated pictures, [P, D].
        photographs: embeddings of the photographs of the concept, [N, D].

    Returns:
        [P] in fp32.
    """
    return cosines(pictures, photographs).mean(dim=1)


def text_similarity(pictures: Tensor, texts: Tensor) -> Tensor:
    """CLIP-T: the cosine similarity of each picture with its own prompt (Radford et al. 2021, arXiv 2103.00020;
    Ruiz et al. 2023, Sec. 4.1).

    It is not CLIPScore (Hessel et al. 2021), which multiplies by 2.5 and cuts at 0.

    Args:
        pictures: CLIP image embeddings, [P, D].
        texts: CLIP text embeddings of each picture's prompt, in the same order, [P, D].

    Returns:
        [P] in fp32.
    """
    return F.cosine_similarity(pictures.float(), texts.float(), dim=-1)

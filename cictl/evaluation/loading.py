"""Loading a network that measures, whole or not at all; embedding with it in small batches; letting it go."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cictl.errors import ModelAccessError, lacking
from cictl.models.locate import Located
from cictl.models.pretrained import UnreadableError, load_pretrained

_BATCH = 8


@contextmanager
def loaded(kind: Any, located: Located, hint: str, device: torch.device) -> Iterator[Any]:
    """A frozen network of the library's class ``kind`` in fp32 on ``device``, for as long as the block runs.

    Raises:
        ModelAccessError: it cannot be read, or lacks weights, which would be random then.
    """
    try:
        network, missing = load_pretrained(kind, located.folder, dtype=torch.float32)
    except UnreadableError as error:
        raise ModelAccessError(
            f"{located.id} cannot be loaded as {kind.__name__} ({error})", hint, slug="metric-unreadable"
        ) from None
    if missing:
        raise ModelAccessError(
            f"{located.id} is no whole {kind.__name__}: it {lacking(missing)}",
            hint,
            slug="metric-incomplete",
        )
    gc.collect()  # what has drawn the pictures must not stay on the GPU beside what measures them
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        yield network.eval().requires_grad_(False).to(device)
    finally:
        network.to("cpu")


def load_processor(kind: Any, located: Located, hint: str) -> Any:
    """The image processor of a model.

    Raises:
        ModelAccessError: it cannot be read.
    """
    try:
        return kind.from_pretrained(located.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelAccessError(
            f"{located.id} has no preprocessor_config.json that can be read ({first_line})",
            hint,
            slug="metric-without-preprocessor",
        ) from None


@torch.no_grad()
def embed(pictures: Iterable[Image.Image], processor: Any, network: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """Embeddings of RGB pictures of any size, prepared by the model's own processor, [P, D] in fp32 on the CPU.

    Args:
        network: prepared pixels [B, 3, H, W] to embeddings [B, D].
    """
    found, rest = [], iter(pictures)
    while batch := list(islice(rest, _BATCH)):
        # One by one: a processor may stack only pictures of equal size.
        pixels = [processor(images=picture.convert("RGB"), return_tensors="pt").pixel_values for picture in batch]
        found.append(network(torch.cat(pixels).to(device)).float().cpu())
    return torch.cat(found)

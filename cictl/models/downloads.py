"""What of a model is still to be downloaded, before it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cictl.errors import CictlError, ModelAccessError
from cictl.events import Observer
from cictl.models import hub
from cictl.models.hub_request import Request

if TYPE_CHECKING:
    from cictl.models.locate import Located

# Bytes in fp32 of Stable Diffusion 1.5 with its safety checker and of CLIP ViT-L/14: the numbers in their layers, times four.
USUAL = {"model.id": ("Stable Diffusion 1.5", 5_481_000_000), "model.clip": ("CLIP ViT-L/14", 1_711_000_000)}


@dataclass(frozen=True)
class Download:
    """A model that the first command which needs it will fetch.

    Attributes:
        bytes: that are not here yet.
        as_usual: whose size that is, where the hub could not be asked for its own.
    """

    bytes: int
    as_usual: str = ""


def is_absent(error: CictlError) -> bool:
    """Whether it says no more than that a model on the hub is not on this machine."""
    return error.slug == "hub-switched-off"


def require_obtainable(locate: Callable[[], Located], request: Request, observe: Observer) -> Located | None:
    """The model on this machine, or None if the hub would give it. Nothing is downloaded.

    Args:
        locate: looks on this machine.

    Raises:
        ModelAccessError: as the download would, or ``locate``.
    """
    try:
        return locate()
    except ModelAccessError as error:
        if not is_absent(error):
            raise
    hub.to_download(request, observe)
    return None


def foresee_download(request: Request, observe: Observer, *, ask: bool = True) -> Download:
    """How much would come: what the hub says, or, if it cannot be reached or is not to be asked, the usual size.

    Raises:
        ModelAccessError: the hub refuses, has not the files, or is switched off, so that the model could not be had.
    """
    if ask:
        try:
            return Download(hub.to_download(request, observe))
        except ModelAccessError as error:
            if error.slug != "hub-unreachable":
                raise
    name, size = USUAL[request.key]
    return Download(size, name)

"""What the peers' scripts import of torchvision, where there is no torchvision for the installed torch.

Of all that they name they only use the mirroring of a picture, unless class pictures are trained on too; the rest can be
made, but not used. Results say whether this was in use. It never is where torchvision can be imported.
"""

from __future__ import annotations

import enum
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from PIL import Image, ImageOps


class RandomHorizontalFlip:
    """Mirrors a picture with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.mirror(picture) if torch.rand(1) < self.p else picture


class InterpolationMode(enum.Enum):
    """How pixels are interpolated."""

    BILINEAR = "bilinear"


class _Unused:
    """A transform that is made and never used."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, picture: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is not in the stand-in for torchvision: install torchvision")


def install() -> None:
    """Make ``from torchvision import transforms`` find this."""
    package, transforms = ModuleType("torchvision"), ModuleType("torchvision.transforms")
    unused = ("Compose", "Resize", "CenterCrop", "RandomCrop", "ToTensor", "Normalize")
    made: dict[str, Any] = {name: type(name, (_Unused,), {}) for name in unused}
    for name, value in {**made, "RandomHorizontalFlip": RandomHorizontalFlip, "InterpolationMode": InterpolationMode}.items():
        setattr(transforms, name, value)
    for module in (package, transforms):
        module.__spec__ = ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
    package.transforms = transforms  # type: ignore[attr-defined]

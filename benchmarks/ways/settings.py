"""Which ways there are, in groups that take turns; each group begins with the default, which the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

What = Literal["invert", "finetune", "pictures"]


@dataclass(frozen=True)
class Way:
    """How something is computed.

    Attributes:
        name: in tables.
        what: a step of a stage, or pictures.
        settings: of ci.yaml, by dotted key.
        compiled: whether ``torch.compile`` has the UNet, for which there is no setting.
        order_kept: False lets a fused UNet lose channels last where the library does.
    """

    name: str
    what: What = "invert"
    settings: Mapping[str, Any] = field(default_factory=dict)
    compiled: bool = False
    order_kept: bool = True


_LIBRARYS = {"model.fused": False}
_LAUNCHED = {"model.cuda_graph": False}
# What matters most is first: whatever is measured may be cut off.
GROUPS: dict[str, tuple[Way, ...]] = {
    "kernels": (
        Way("stage 1, fused, recorded: the default"),
        Way("the same, channels last lost where the library loses them", order_kept=False),
        Way("the same, model.deterministic", settings={"model.deterministic": True}),
        Way("stage 1, the library's kernels, recorded", settings=_LIBRARYS),
    ),
    "pictures": (
        Way("pictures, fused, recorded: the default", "pictures"),
        Way("the same, channels last lost where the library loses them", "pictures", order_kept=False),
        Way("pictures, the library's kernels, recorded", "pictures", _LIBRARYS),
        Way("pictures, fused, launched", "pictures", _LAUNCHED),
    ),
    "memory": (
        Way("stage 1, fused, recorded: the default"),
        Way("the same, model.memory low", settings={"model.memory": "low"}),
        Way("the same, model.memory lowest", settings={"model.memory": "lowest"}),
        Way("stage 1, fused, launched", settings=_LAUNCHED),
        Way("stage 1, the library's kernels, launched", settings=_LIBRARYS | _LAUNCHED),
    ),
    "stage-2": (Way("stage 2, fused, recorded: the default", "finetune"),),
    "compiled": (
        Way("stage 1, fused, recorded: the default"),
        Way("the same, torch.compile", compiled=True),
        Way("stage 1, the library's kernels, torch.compile, recorded", settings=_LIBRARYS, compiled=True),
    ),
    "pictures-compiled": (
        Way("pictures, fused, recorded: the default", "pictures"),
        Way("the same, torch.compile", "pictures", compiled=True),
        Way("pictures, the library's kernels, torch.compile, recorded", "pictures", _LIBRARYS, compiled=True),
    ),
}

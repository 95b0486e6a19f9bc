"""What runs behind a gate: cictl's own commands, on a UNet that is changed when it has been loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.generate import programs as drawing
from benchmarks.side_by_side.gate import Gate
from benchmarks.steps.programs import run_cictl

_REPEATS = 3


def train(gate: Gate, changes: Mapping[str, bool], **options: Any) -> None:
    """Train as ``benchmarks.steps`` does. A fact is whether the first gradient has the same bits three times.

    Args:
        changes: ``compiled`` and ``order_kept``, see :class:`benchmarks.ways.settings.Way`.
        options: of :func:`benchmarks.steps.programs.run_cictl`.
    """
    change_when_loaded(partial(_change, **changes))
    compute_first_gradient_again(gate)
    run_cictl(gate, **options)


def draw(gate: Gate, changes: Mapping[str, bool], **options: Any) -> None:
    """Draw as ``benchmarks.generate`` does.

    Args:
        changes: as :func:`train`.
        options: of :func:`benchmarks.generate.programs.run_cictl`.
    """
    change_when_loaded(partial(_change, **changes))
    drawing.run_cictl(gate, **options)


def change_when_loaded(change: Callable[[Any], None]) -> None:
    """Let ``change`` have the UNet of whatever base model is loaded from now on."""
    from cictl.models.stable_diffusion import StableDiffusion

    load = StableDiffusion.load

    def changed(*arguments: Any, **options: Any) -> StableDiffusion:
        model = load(*arguments, **options)
        change(model.unet)
        return model

    StableDiffusion.load = changed  # type: ignore[method-assign]


def compute_first_gradient_again(gate: Gate) -> None:
    """Let a training compute the gradient of its first step three times more: a fact is whether all have the same bits."""
    import torch

    from cictl.data.draws import Batch
    from cictl.engine import training

    class Repeated(training.Gradient):
        def __call__(self, part: Batch, parts: int) -> dict[str, torch.Tensor]:
            if "same_bits" not in gate.facts:
                found = [torch.autograd.grad(self.method.loss(part).total, self.parameters) for _ in range(_REPEATS)]
                pairs = [pair for again in found[1:] for pair in zip(again, found[0], strict=True)]
                gate.facts["same_bits"] = all(torch.equal(one, other) for one, other in pairs)
            return super().__call__(part, parts)

    training.Gradient = Repeated  # type: ignore[misc]


def lose_order(unet: Any) -> None:
    """Undo what keeps channels last where the library loses them: at the end of transformers, and in 1 x 1 convolutions."""
    from torch import nn

    from cictl.models.convolutions import keep_no_input

    for module in unet.modules():
        vars(module).pop("_get_output_for_continuous_inputs", None)
        if isinstance(module, nn.Conv2d) and getattr(module.forward, "__name__", "") == "_multiply":
            del module.forward
            keep_no_input(module)


def _change(unet: Any, *, compiled: bool, order_kept: bool) -> None:
    if not order_kept:
        lose_order(unet)
    if compiled:
        unet.compile()

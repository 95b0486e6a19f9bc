"""What runs behind a gate: cictl's own command, and a peer's script, each as it is and hooked from outside."""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.gate import Gate


def run_cictl(gate: Gate, workspace: Path, stage: str, settings: Mapping[str, Any], gradient: Path | None = None) -> None:
    """Train a stage as ``cictl invert`` or ``cictl finetune`` does; every report of progress is the end of a block.

    Args:
        settings: as --set gives them, by dotted key; ``tracking.interval`` is the length of a block.
        gradient: a file for the gradient of the first step.
    """
    from cictl.data import draws
    from cictl.events import Event, Note, Progress, Warned
    from cictl.workflow import finetune, invert
    from cictl.workspace import Workspace

    draw = draws.draw_batch

    def timed_draw(*arguments: Any, **options: Any) -> Any:
        with gate.loading():
            return draw(*arguments, **options)

    def observe(event: Event) -> None:
        if isinstance(event, Note | Warned):  # such as that there are no fused kernels
            gate.note(event.message)
        if isinstance(event, Progress):
            gate.arrive()

    draws.draw_batch = timed_draw
    if gradient is not None:
        _save_first_gradient(gradient)
    run: Callable[..., Any] = {"invert": invert.run, "finetune": finetune.run}[stage]
    run(Workspace(workspace), observe, overrides=settings)


def run_peer(gate: Gate, script: Path, arguments: Sequence[str], block: int) -> None:
    """Run ``script`` unmodified. Both peers call ``Accelerator.log`` once, and last, in every step."""
    os.environ.pop("PYTHONPATH", None)
    stand_in = provide_torchvision()
    if stand_in:
        print("torchvision: a stand-in, see benchmarks/steps/torchvision_stand_in.py", flush=True)
    from accelerate import Accelerator
    from torch.utils.data import dataloader

    log, load = Accelerator.log, dataloader._BaseDataLoaderIter.__next__
    steps = 0

    def timed_log(self: Any, *values: Any, **options: Any) -> None:
        nonlocal steps
        log(self, *values, **options)
        steps += 1
        if steps % block == 0:
            gate.arrive()

    def timed_load(self: Any) -> Any:
        with gate.loading():
            return load(self)

    Accelerator.log = timed_log
    dataloader._BaseDataLoaderIter.__next__ = timed_load  # type: ignore[method-assign]
    sys.argv = [str(script), *arguments]
    runpy.run_path(str(script), run_name="__main__")


def provide_torchvision() -> bool:
    """Put the stand-in in torchvision's place if torchvision cannot be imported; whether it was."""
    # First, so that they find out by themselves that there is none.
    importlib.import_module("transformers.utils.import_utils").is_torchvision_available()
    importlib.import_module("diffusers.utils.import_utils")
    if has_torchvision():
        return False
    from benchmarks.steps import torchvision_stand_in

    torchvision_stand_in.install()
    return True


def has_torchvision() -> bool:
    """Whether torchvision is here, and fits this torch."""
    try:
        importlib.import_module("torchvision.transforms")
    except (ImportError, RuntimeError):  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


def _save_first_gradient(file: Path) -> None:
    """Write the gradients of S* and of the A_i* before the optimizer's first step, by name."""
    from safetensors.torch import save_file
    from torch.optim import Optimizer
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    def save(optimizer: Optimizer, *_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad.float().cpu() for parameter in parameters if parameter.grad is not None]
        save_file(dict(zip(("concept", "auxiliary"), gradients, strict=False)), file)
        handle.remove()

    handle = register_optimizer_step_pre_hook(save)

"""What trainings and pictures will take: memory, time and room on the disk, by the model's layers and the device's speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from cictl.config import Config, Stage, group_of, settings_of
from cictl.models.locate import Located
from cictl.sizes import size_in_words
from cictl.workflow.findings import CheckReport, DrawingEstimate, Estimate
from cictl.workflow.saving import milestones_of
from cictl.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from cictl.engine.speed import Speed

_EFFICIENCY = 0.6  # of a large product's speed, which training was seen to reach
_HOUR = 3600
_LONG = 6 * _HOUR  # nobody waits for it
_SMALL = 256  # pixels; below that Stable Diffusion draws little that can be recognised


@dataclass(frozen=True)
class Left:
    """What is left of a training.

    Attributes:
        config: that it is trained with.
        done: steps of it.
    """

    stage: Stage
    config: Config
    done: int = 0

    @property
    def steps(self) -> int:
        """That are asked for in all."""
        return settings_of(self.config, self.stage).steps


def find_device(report: CheckReport, config: Config) -> tuple[torch.device, torch.dtype]:
    """Where a training runs, and in which precision.

    Raises:
        UsageError: the device is not there, or cannot be used.
    """
    from cictl.engine.runtime import Runtime

    runtime = Runtime.create(config.model.device, config.model.dtype)
    if runtime.overlooked:
        report.add("warning", "device", runtime.overlooked, "train on the GPU, which is many times as fast")
    return runtime.device, runtime.dtype


def estimate(
    report: CheckReport, workspace: Workspace, base: Located, device: torch.device, dtype: torch.dtype, trainings: Sequence[Left]
) -> None:
    """Add to ``report`` what ``trainings`` will take, how that was estimated, and what of it is too much for the device."""
    from cictl.engine.speed import measure_speed
    from cictl.workflow.fitting import free_memory

    free = free_memory(device)
    report.add("ok", "device", f"{device}, {str(dtype).removeprefix('torch.')}, {size_in_words(free, 'MiB')} free")
    if not trainings:
        return
    speed = measure_speed(device, dtype)
    report.estimates += [_estimate(workspace, training, base, device, dtype, speed) for training in trainings]
    _warn_of_memory(report, free, device)
    _warn_of_time(report, workspace, trainings, device)
    if not base.identity:
        known = "memory and time are known once the model is there; until then they are counted on Stable Diffusion 1.5's layers"
        report.add("ok", "estimates", known)
    layers = "the model's layers" if base.identity else "Stable Diffusion 1.5's layers, since the model is not here yet"
    report.method = (
        f"memory: weights, kept activations, trained weights with their moments, counted on {layers}; time: {_said(speed)}"
    )


def estimate_pictures(config: Config, base: Located, count: int, processes: int = 1) -> DrawingEstimate:
    """What ``count`` pictures with the settings of ci.yaml will take, shared by so many processes.

    Raises:
        UsageError: the device is not there, or cannot be used.
    """
    from cictl.engine.runtime import Runtime
    from cictl.engine.speed import measure_speed

    runtime = Runtime.create(config.model.device, config.model.dtype)
    speed = measure_speed(runtime.device, runtime.dtype)
    seconds = _drawing(config, base, runtime.dtype, speed, count, processes)
    unet = "the UNet's steps" if base.identity else "the steps of Stable Diffusion 1.5's UNet, since the model is not here yet"
    return DrawingEstimate(seconds, str(runtime.device), f"{unet}, without loading anything; {_said(speed)}")


def _said(speed: Speed) -> str:
    return (
        f"{speed.flops / 1e9:,.0f} GFLOP/s, measured in a product of matrices, {_EFFICIENCY:.0%} of it in use, and "
        f"{speed.call * 1e6:.1f} microseconds an operation"
    )


def _seconds(speed: Speed, flops: float, calls: int) -> float:
    return flops / (_EFFICIENCY * speed.flops) + calls * speed.call


def _drawing(config: Config, base: Located, dtype: torch.dtype, speed: Speed, count: int, processes: int = 1) -> float:
    """Seconds for the steps of ``count`` pictures, of which each process draws whole batches."""
    from cictl.models.cost import count_denoising

    settings, size = config.generate, min(config.generate.batch_size, count)
    batches = ceil(ceil(count / size) / processes)
    flops, calls = count_denoising(base.folder, size=config.picture_size, batch=size, dtype=dtype, guided=settings.guidance != 1)
    return settings.steps * _seconds(speed, flops * min(batches, count / size), batches * calls)


def _estimate(
    workspace: Workspace, training: Left, base: Located, device: torch.device, dtype: torch.dtype, speed: Speed
) -> Estimate:
    from cictl.workflow.class_pictures import as_drawn, missing_pictures
    from cictl.workflow.fitting import fitting_step

    stage, config = training.stage, training.config
    settings = settings_of(config, stage)
    kept, cost = fitting_step(config, stage, base, device, dtype)
    step, steps = settings.accumulation * _seconds(speed, cost.flops, cost.calls), training.steps - training.done
    pictures = missing_pictures(workspace, config, base, settings)
    drawing = _drawing(as_drawn(config), base, dtype, speed, pictures) if pictures else 0.0
    snapshots = len(milestones_of(config, stage)) * cost.result
    return Estimate(stage, steps, cost.memory, step * steps, cost.checkpoint, snapshots, kept, pictures, drawing)


def _warn_of_memory(report: CheckReport, free: int, device: torch.device) -> None:
    most = max(report.estimates, key=lambda one: one.memory)
    if most.memory > free:
        message = (
            f"training needs about {size_in_words(most.memory, 'MiB')}, and {size_in_words(free, 'MiB')} are free on {device}"
        )
        less = "" if most.kept == "lowest" else "--set model.memory=lowest, or with "
        report.add("warning", "device", message, f"close what else uses it, or train with {less}--set invert.accumulation=4")


def _warn_of_time(report: CheckReport, workspace: Workspace, trainings: Sequence[Left], device: torch.device) -> None:
    """Say that nobody will wait for it, and what to do instead: of what has begun, only the device can still be another."""
    seconds = sum(one.seconds + one.drawing for one in report.estimates)
    if seconds < _LONG:
        return
    gpu = "a GPU, which is many times as fast" if device.type == "cpu" else "a faster GPU"
    hint = f"train on {gpu}; the workspace can be copied to another machine"
    if not any(one.done for one in trainings):
        less = [f"--set {group_of(one.stage)}.steps={ceil(one.steps / 4)}" for one in trainings]
        smaller = trainings[0].config.data.resolution // 2
        if trainings[0].stage == "invert" and smaller >= _SMALL:  # stage 2 has the resolution of stage 1
            less.append(f"--set data.resolution={smaller}")
        hint += f"\nor do less, at the cost of quality; what that takes says: {workspace.typed('cictl check ' + ' '.join(less))}"
    report.add("warning", "device", f"training would take about {seconds / _HOUR:,.0f} hours on {device}", hint)

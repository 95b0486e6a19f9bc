"""`cictl check`: everything that can be known before a training, and what it will take. Trains nothing, writes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cictl.config import Config, Stage, settings_of
from cictl.data import diagnosis
from cictl.data.photographs import Photograph, find_photographs, load_pixels
from cictl.errors import CictlError, ModelAccessError
from cictl.events import Observer, PhaseStarted
from cictl.models.locate import Located, locate_base, locate_clip
from cictl.workflow.stage import STAGES, configure
from cictl.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import torch

Level = Literal["ok", "warning", "error"]
T = TypeVar("T")

_FEW, _MANY = 3, 6
# Measured on 24 sets of DreamBench and on the toybox's failure cases: docs/check.md.
_SAME_BACKGROUND = 0.22
_PLAIN_BACKGROUND = 0.10
_SAME_PICTURE = 0.04
_BLURRED = 2.0
_SAME_EMBEDDING = 0.97
_EFFICIENCY = 0.6  # of a large product's speed, which training was seen to reach
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: photographs, config, model, CLIP, device, or disk.
        hint: what to do about it; empty where all is well.
        slug: of an error, as the command that would end with it gives it.
    """

    level: Level
    about: str
    message: str
    hint: str = ""
    slug: str = ""


@dataclass(frozen=True)
class Estimate:
    """What a training will take: bytes on the device, seconds for its steps, bytes of one of its checkpoints.

    Attributes:
        kept: model.memory, or what auto chose.
        class_pictures: that are to be drawn first, in ``drawing`` seconds.
    """

    stage: Stage
    steps: int
    memory: int
    seconds: float
    checkpoint: int
    kept: str = "full"
    class_pictures: int = 0
    drawing: float = 0.0


@dataclass
class CheckReport:
    """What was found, and what training will take; ``method`` says how that was estimated."""

    workspace: str
    findings: list[Finding] = field(default_factory=list)
    estimates: list[Estimate] = field(default_factory=list)
    method: str = ""
    exit_code: int = 0

    def add(self, level: Level, about: str, message: str, hint: str = "") -> None:
        """Note something."""
        self.findings.append(Finding(level, about, message, hint))

    def fail(self, about: str, error: CictlError) -> None:
        """Note an error; the first one gives the exit code."""
        self.findings.append(Finding("error", about, error.message, error.hint, error.slug))
        self.exit_code = self.exit_code or error.exit_code


def run(workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None) -> CheckReport:
    """Look at photographs, config, model, device and disk. Errors are findings; nothing is raised for them."""
    report = CheckReport(str(workspace.root))
    try:
        config = configure(workspace, overrides or {})
    except CictlError as error:
        report.fail("config", error)
        return report
    report.add("ok", "config", f"ci.yaml is valid; seed {config.seed}")
    observe(PhaseStarted("looking at the photographs"))
    photographs = _try(report, "photographs", lambda: find_photographs(workspace.images))
    pictures = [load_pixels(photograph, config.data.resolution) for photograph in photographs or []]
    if photographs:
        _look_at(report, photographs, pictures, config.data.resolution)
    base = _try(report, "model", lambda: locate_base(config.model.id, config.model.revision, offline=True))
    clip = _try(report, "CLIP", lambda: locate_clip(config.model.clip, config.model.clip_revision, offline=True))
    for about, found in (("model", base), ("CLIP", clip)):
        if found:
            report.add("ok", about, f"{found.id}, {found.identity[:12]}")
    observe(PhaseStarted("loading the libraries"))
    device = _try(report, "device", lambda: _device(config))
    if clip and pictures and device:
        observe(PhaseStarted("comparing the photographs as CLIP sees them"))
        _compare(report, photographs or [], pictures, clip, device[0])
    if base and device:
        observe(PhaseStarted("estimating memory and time"))
        _estimate(report, config, workspace, base, *device)
    _look_at_disk(report, workspace)
    return report


def expect(
    workspace: Workspace, stage: Stage, observe: Observer, overrides: Mapping[str, Any], *, done: int = 0
) -> tuple[Estimate, str] | None:
    """What ``stage`` will take and how that was estimated; None if the model is still to be downloaded.

    Args:
        done: steps of it.
    """
    report = CheckReport(str(workspace.root))
    config = configure(workspace, overrides, upto=stage, fresh=not done)
    base = _try(report, "model", lambda: locate_base(config.model.id, config.model.revision, offline=True))
    if base is None:
        return None
    observe(PhaseStarted("estimating memory and time"))
    [estimate] = _estimate(report, config, workspace, base, *_device(config), stages=[stage], done=done)
    return estimate, report.method


def _try(report: CheckReport, about: str, work: Callable[[], T]) -> T | None:
    try:
        return work()
    except ModelAccessError as error:
        # Not an error yet: the first training downloads it.
        if error.slug == "hub-switched-off":
            report.add("warning", about, error.message.split(",")[0], "the first training downloads it")
        else:
            report.fail(about, error)
    except CictlError as error:
        report.fail(about, error)
    return None


def _look_at(report: CheckReport, photographs: Sequence[Photograph], pictures: Sequence[np.ndarray], resolution: int) -> None:
    """Count, size, sharpness, doubles, and what all of them share besides the concept."""
    count = len(photographs)
    report.add("ok", "photographs", f"{count}: {', '.join(sorted(photograph.path.name for photograph in photographs))}")
    if not _FEW <= count <= _MANY:
        report.add("warning", "photographs", f"there are {count}", "three to six work best")
    for photograph, picture in zip(photographs, pictures, strict=True):
        name = photograph.path.name
        if min(photograph.width, photograph.height) < resolution:
            size = f"{photograph.width} x {photograph.height}"
            report.add("warning", "photographs", f"{name} is {size} pixels, and is enlarged to {resolution}", "take a larger one")
        if diagnosis.sharpness(picture) < _BLURRED:
            report.add("warning", "photographs", f"{name} is blurred", "take one that is in focus")
    difference, one, other = diagnosis.most_alike(pictures)
    if difference < _SAME_PICTURE:
        names = _both(photographs, one, other)
        report.add("warning", "photographs", f"{names} are nearly the same picture", "keep one of them, and take another view")
    rims = sorted(diagnosis.rim_difference(a, b) for a, b in combinations(pictures, 2))
    if max(map(diagnosis.rim_variation, pictures)) < _PLAIN_BACKGROUND:
        message = "all have a plain background, and the auxiliary tokens have little to hold (the paper's appendix B.2)"
        report.add("warning", "photographs", message, "photograph it in different places, with other things around it")
    elif rims[len(rims) // 2] < _SAME_BACKGROUND:
        message = "most have the same background, which will be taken for a part of the concept (the paper's appendix B.2)"
        report.add("warning", "photographs", message, "photograph it in different places")


def _compare(
    report: CheckReport,
    photographs: Sequence[Photograph],
    pictures: Sequence[np.ndarray],
    clip: Located,
    device: torch.device,
) -> None:
    """Photographs that CLIP cannot tell apart leave Eq. 2 nothing to compare."""
    import torch.nn.functional as F

    from cictl.models.clip import embed_images

    embeddings = F.normalize(embed_images(clip, pictures, device), dim=-1)
    for one, other in combinations(range(len(pictures)), 2):
        if float(embeddings[one] @ embeddings[other]) > _SAME_EMBEDDING:
            names = _both(photographs, one, other)
            message = f"CLIP can hardly tell {names} apart, so that Eq. 2 finds no difference between them"
            report.add("warning", "photographs", message, "replace one by a photograph of another place or from another side")


def _both(photographs: Sequence[Photograph], one: int, other: int) -> str:
    return " and ".join(sorted((photographs[one].path.name, photographs[other].path.name)))


def _device(config: Config) -> tuple[torch.device, torch.dtype]:
    from cictl.engine.runtime import Runtime

    runtime = Runtime.create(config.model.device, config.model.dtype)
    return runtime.device, runtime.dtype


def _estimate(
    report: CheckReport,
    config: Config,
    workspace: Workspace,
    base: Located,
    device: torch.device,
    dtype: torch.dtype,
    *,
    stages: Sequence[Stage] = STAGES,
    done: int = 0,
) -> list[Estimate]:
    from cictl.engine.speed import measure_speed
    from cictl.models.cost import count_denoising
    from cictl.workflow.class_pictures import as_drawn, missing_pictures
    from cictl.workflow.fitting import fitting_step, free_memory

    speed = measure_speed(device, dtype)
    free = free_memory(device)
    report.add("ok", "device", f"{device}, {str(dtype).removeprefix('torch.')}, {free / _MEBIBYTE:,.0f} MiB free")

    def seconds(flops: float, calls: int) -> float:
        return flops / (_EFFICIENCY * speed.flops) + calls * speed.call

    for stage in stages:
        settings = settings_of(config, stage)
        kept, cost = fitting_step(config, stage, base, device, dtype)
        step, steps = settings.accumulation * seconds(cost.flops, cost.calls), settings.steps - done
        drawing = 0.0
        if pictures := missing_pictures(workspace, config, base, settings):
            batch, rounds = as_drawn(config).generate.batch_size, as_drawn(config).generate.steps
            one = count_denoising(base.folder, resolution=config.data.resolution, batch=batch, dtype=dtype)
            drawing = ceil(pictures / batch) * rounds * seconds(*one)
        report.estimates.append(Estimate(stage, steps, cost.memory, step * steps, cost.checkpoint, kept, pictures, drawing))
    most = max(estimate.memory for estimate in report.estimates)
    if most > free:
        message = f"training needs about {most / _MEBIBYTE:,.0f} MiB, and {free / _MEBIBYTE:,.0f} MiB are free on {device}"
        less = "" if report.estimates[0].kept == "lowest" else "--set model.memory=lowest, or with "
        report.add("warning", "device", message, f"close what else uses it, or train with {less}--set invert.accumulation=4")
    report.method = (
        "memory: weights, kept activations, trained weights with their moments, counted on the model's layers; "
        f"time: {speed.flops / 1e9:,.0f} GFLOP/s, measured in a product of matrices, {_EFFICIENCY:.0%} of it in use, and "
        f"{speed.call * 1e6:.0f} microseconds an operation"
    )
    return report.estimates


def _look_at_disk(report: CheckReport, workspace: Workspace) -> None:
    """Three checkpoints of each stage must fit: two are kept, one is being written."""
    free = shutil.disk_usage(workspace.root).free
    needed = 3 * _MEBIBYTE + 3 * sum(estimate.checkpoint for estimate in report.estimates)
    if free < needed:
        message = f"checkpoints need about {needed / _MEBIBYTE:,.0f} MiB, and {free / _MEBIBYTE:,.0f} MiB are free"
        report.add("warning", "disk", message, "make room")
    else:
        report.add("ok", "disk", f"{free / _MEBIBYTE:,.0f} MiB free, about {needed / _MEBIBYTE:,.0f} MiB needed")

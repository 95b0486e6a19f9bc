"""`cictl check`: everything that can be known before a training, and what it will take. Trains nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar

from cictl.config import Config, Stage, settings_of
from cictl.data import diagnosis
from cictl.data.photographs import Photograph, find_photographs, load_pixels
from cictl.errors import CictlError
from cictl.events import Observer, PhaseStarted
from cictl.models.downloads import Download, foresee_download, is_absent
from cictl.models.hub import cache_folder, switched_off
from cictl.models.hub_errors import hub_name
from cictl.models.hub_request import Request
from cictl.models.locate import Located, base_request, clip_request, locate_base, locate_clip
from cictl.models.single_file import SD1_CONFIGS
from cictl.workflow.findings import CheckReport, Estimate
from cictl.workflow.memory import out_of_memory_explained
from cictl.workflow.room import look_at_disks, size_in_words
from cictl.workflow.saving import milestones_of
from cictl.workflow.stage import STAGES, configure, reads_clip
from cictl.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import torch

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
_FULL = "close what else uses it (nvidia-smi lists it, on a GPU)"


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
    base, clip, downloads = _find_models(report, config, observe)
    observe(PhaseStarted("loading the libraries"))
    device = _try(report, "device", lambda: _device(report, config))
    if clip and pictures and device:
        observe(PhaseStarted("comparing the photographs as CLIP sees them"))
        _try(report, "device", lambda: _compare(report, photographs or [], pictures, clip, device[0]))
    if base and device:
        observe(PhaseStarted("estimating memory and time"))
        _try(report, "device", lambda: _estimate(report, config, workspace, base, *device))
    elif not base:
        report.add("ok", "estimates", "memory, time and what the disk needs are known once the model is there")
    look_at_disks(report, workspace, downloads)
    return report


def expect(
    workspace: Workspace, stage: Stage, observe: Observer, overrides: Mapping[str, Any], *, done: int = 0, fresh: bool = False
) -> tuple[Estimate, str]:
    """What ``stage`` will take and how that was estimated.

    Args:
        done: steps of it.
        fresh: it starts anew, without what --set gave it before.

    Raises:
        ModelAccessError: there cannot be such a base model, or it is not here and the hub is switched off.
    """
    report = CheckReport(str(workspace.root))
    config = configure(workspace, overrides, upto=stage, fresh=fresh)
    try:
        base = locate_base(config.model.id, config.model.revision, offline=True)
    except CictlError as error:
        if not is_absent(error) or switched_off():
            raise
        base = _stand_in(config)
    observe(PhaseStarted("estimating memory and time"))
    with out_of_memory_explained(_FULL):
        [estimate] = _estimate(report, config, workspace, base, *_device(report, config), stages=[stage], done=done)
    return estimate, report.method


def _try(report: CheckReport, about: str, work: Callable[[], T]) -> T | None:
    try:
        with out_of_memory_explained(_FULL):
            return work()
    except CictlError as error:
        report.fail(about, error)
    return None


def _find_models(report: CheckReport, config: Config, observe: Observer) -> tuple[Located | None, Located | None, list[Download]]:
    """The base model and CLIP, as far as they can be had, and what would have to be downloaded of them.

    For a base model that is still to come stands another of its layout.
    """
    base, clip, downloads = None, None, []
    model = config.model
    try:
        base = locate_base(model.id, model.revision, offline=True)
        report.add("ok", "model", f"{base.id}, {base.identity[:12]}")
    except CictlError as error:
        downloads += _foresee(report, "model", error, base_request(model.id, model.revision), observe)
        base = _stand_in(config) if downloads else None
    try:
        clip = locate_clip(model.clip, model.clip_revision, offline=True)
        report.add("ok", "CLIP", f"{clip.id}, {clip.identity[:12]}")
    except CictlError as error:
        if reads_clip(config, "invert"):
            ask = not any(download.as_usual for download in downloads)
            downloads += _foresee(report, "CLIP", error, clip_request(model.clip, model.clip_revision), observe, ask=ask)
    return base, clip, downloads


def _foresee(
    report: CheckReport, about: str, error: CictlError, request: Request, observe: Observer, *, ask: bool = True
) -> list[Download]:
    """The download that would mend ``error``, if one would."""
    if not is_absent(error):
        report.fail(about, error)
        return []
    if not (download := _try(report, about, lambda: foresee_download(request, observe, ask=ask))):
        return []
    estimated = f", as {download.as_usual} has, since {hub_name()} cannot be reached now" if download.as_usual else ""
    message = f"{request.id} is not on this machine: {size_in_words(download.bytes)} to download{estimated}"
    report.add("warning", about, message, f"the first training downloads it to {cache_folder()}")
    return [download]


def _stand_in(config: Config) -> Located:
    """What a model that is not here yet is counted on: Stable Diffusion 1.5's layout, which all of its kind have."""
    return Located(config.model.id, SD1_CONFIGS, "")


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


def _device(report: CheckReport, config: Config) -> tuple[torch.device, torch.dtype]:
    from cictl.engine.runtime import Runtime

    runtime = Runtime.create(config.model.device, config.model.dtype)
    if runtime.overlooked:
        report.add("warning", "device", runtime.overlooked, "train on the GPU, which is many times as fast")
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
        snapshots = len(milestones_of(config, stage)) * cost.result
        report.estimates.append(
            Estimate(stage, steps, cost.memory, step * steps, cost.checkpoint, snapshots, kept, pictures, drawing)
        )
    most = max(estimate.memory for estimate in report.estimates)
    if most > free:
        message = f"training needs about {most / _MEBIBYTE:,.0f} MiB, and {free / _MEBIBYTE:,.0f} MiB are free on {device}"
        less = "" if report.estimates[0].kept == "lowest" else "--set model.memory=lowest, or with "
        report.add("warning", "device", message, f"close what else uses it, or train with {less}--set invert.accumulation=4")
    if not base.identity:
        known = "memory and time are known once the model is there; until then they are counted on Stable Diffusion 1.5's layers"
        report.add("ok", "estimates", known)
    layers = "the model's layers" if base.identity else "Stable Diffusion 1.5's layers, since the model is not here yet"
    report.method = (
        f"memory: weights, kept activations, trained weights with their moments, counted on {layers}; "
        f"time: {speed.flops / 1e9:,.0f} GFLOP/s, measured in a product of matrices, {_EFFICIENCY:.0%} of it in use, and "
        f"{speed.call * 1e6:.0f} microseconds an operation"
    )
    return report.estimates

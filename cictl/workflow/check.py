"""`cictl check`: everything that can be known before a training, and what it will take. Trains nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, TypeVar

from cictl.config import STAGES, Config, Stage, command_of, settings_of
from cictl.data import diagnosis
from cictl.data.photographs import Photograph, find_photographs, load_pixels
from cictl.errors import CictlError, StateError
from cictl.events import Observer, PhaseStarted
from cictl.files import quoted
from cictl.models.downloads import Download, foresee_download, is_absent
from cictl.models.hub import cache_folder, switched_off
from cictl.models.hub_errors import hub_name
from cictl.models.hub_request import Request
from cictl.models.locate import Located, base_request, clip_request, locate_clip
from cictl.models.single_file import SD1_CONFIGS
from cictl.records import checkpoint_folders
from cictl.sizes import size_in_words
from cictl.workflow.estimating import Left, estimate, estimate_pictures, find_device
from cictl.workflow.findings import CheckReport, DrawingEstimate, Estimate
from cictl.workflow.memory import out_of_memory_explained
from cictl.workflow.pins import Pins, base_on_disk, read_pins
from cictl.workflow.room import look_at_disks
from cictl.workflow.stage import configure, decide, empty_settings, fingerprint, reads_clip
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
_LONG = 2  # times the shorter side: half of the picture or more is cut off
_LARGE = 256  # pixels a side: four times what the toybox draws
_FULL = "close what else uses it (nvidia-smi lists it, on a GPU)"


def run(workspace: Workspace, observe: Observer, *, overrides: Mapping[str, Any] | None = None) -> CheckReport:
    """Look at photographs, config, model, device and disk. Errors are findings; nothing is raised for them."""
    report = CheckReport(str(workspace.root))
    try:
        config = configure(workspace, overrides or {})
    except CictlError as error:
        report.fail("config", error)
        return report
    if empty := empty_settings(workspace, overrides or {}):
        report.add("warning", "config", *empty)
    else:
        report.add("ok", "config", f"ci.yaml is valid; seed {config.seed}")
    observe(PhaseStarted("looking at the photographs"))
    photographs = _try(report, "photographs", lambda: find_photographs(workspace.images))
    pictures = [load_pixels(photograph, config.data.resolution) for photograph in photographs or []]
    if photographs:
        _look_at(report, photographs, pictures, config.data.resolution)
    comparable = photographs is not None
    left = _try(report, "config", lambda: _find_what_is_left(report, workspace, overrides or {}, comparable)) or []
    base, clip, downloads = _find_models(report, config, read_pins(workspace, config), observe)
    if base and base.id == "toybox" and any(_of_the_world(photograph) for photograph in photographs or []):
        message = "toybox knows nothing but small drawings of its own: of photographs like these S* learns next to nothing"
        beside = workspace.root.with_name(f"{workspace.root.name}-sd15")
        new, images = (quoted(workspace.shown(path)) for path in (beside, workspace.images))
        report.add("warning", "model", message, f"for Stable Diffusion 1.5, and a GPU: cictl init {new} --images {images}")
    observe(PhaseStarted("loading the libraries"))
    device = _try(report, "device", lambda: find_device(report, config))
    if clip and pictures and device:
        observe(PhaseStarted("comparing the photographs as CLIP sees them"))
        _try(report, "device", lambda: _compare(report, photographs or [], pictures, clip, device[0]))
    if base and device:
        observe(PhaseStarted("estimating memory and time"))
        _try(report, "device", lambda: estimate(report, workspace, base, *device, left))
    elif not base and left:
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
        base = base_on_disk(config, read_pins(workspace, config, stage, fresh=fresh))
    except CictlError as error:
        if not is_absent(error) or switched_off():
            raise
        base = _stand_in(config)
    observe(PhaseStarted("estimating memory and time"))
    with out_of_memory_explained(_FULL):
        estimate(report, workspace, base, *find_device(report, config), [Left(stage, config, done)])
    return report.estimates[0], report.method


def expect_pictures(config: Config, base: Located | None, count: int, observe: Observer, processes: int = 1) -> DrawingEstimate:
    """What ``count`` pictures will take.

    Args:
        base: None where it is still to be downloaded.
        processes: that share the work.

    Raises:
        UsageError: the device is not there, or cannot be used.
    """
    observe(PhaseStarted("estimating time"))
    with out_of_memory_explained(_FULL):
        return estimate_pictures(config, base or _stand_in(config), count, processes)


def _try(report: CheckReport, about: str, work: Callable[[], T]) -> T | None:
    try:
        with out_of_memory_explained(_FULL):
            return work()
    except CictlError as error:
        report.fail(about, error)
    return None


def _find_what_is_left(report: CheckReport, workspace: Workspace, overrides: Mapping[str, Any], comparable: bool) -> list[Left]:
    """The stages that are not done; one behind such a one is left as a whole, since what it would be trained on is not there.

    Args:
        comparable: whether the photographs can be held against those that it was trained with.
    """
    if not comparable:
        untouched = (stage for stage in STAGES if not checkpoint_folders(workspace.stage_folder(stage)))
        return [Left(stage, configure(workspace, overrides, upto=stage)) for stage in untouched]
    left: list[Left] = []
    for stage in STAGES:
        training = None if left else _look_at_training(report, workspace, stage, overrides)
        if training is None:
            training = Left(stage, configure(workspace, overrides, upto=stage, fresh=True))
        if training.done < training.steps:
            left.append(training)
    return left


def _look_at_training(report: CheckReport, workspace: Workspace, stage: Stage, overrides: Mapping[str, Any]) -> Left | None:
    """How far a stage is; None if it has to start anew."""
    config = configure(workspace, overrides, upto=stage)
    settings = settings_of(config, stage)
    try:
        decision = decide(workspace, stage, settings, fingerprint(workspace, config, stage))
    except StateError as error:
        report.add("warning", "training", error.message, error.hint)
        return None
    command, done = command_of(stage), decision.first_step
    for warning in decision.warnings:
        report.add("warning", "training", warning, f"{command} goes on from the one before")
    if decision.action == "skip":
        report.add("ok", "training", f"{command} is done: {done} steps")
        return Left(stage, config, settings.steps)
    if done:
        report.add("ok", "training", f"{command} has done {done} of {settings.steps} steps")
    return Left(stage, config, done)


def _find_models(
    report: CheckReport, config: Config, pins: Pins, observe: Observer
) -> tuple[Located | None, Located | None, list[Download]]:
    """The base model and CLIP that a training would use, as far as they can be had, and what would have to be downloaded of them.

    For a base model that is still to come stands another of its layout.
    """
    base, clip, downloads = None, None, []
    model = config.model
    revision, clip_revision = pins.model or model.revision, pins.clip or model.clip_revision
    try:
        base = base_on_disk(config, pins)
        report.add("ok", "model", f"{base.id}, {base.identity[:12]}")
    except CictlError as error:
        downloads += _foresee(report, "model", error, base_request(model.id, revision), observe)
        base = _stand_in(config) if downloads else None
    try:
        clip = locate_clip(model.clip, clip_revision, offline=True)
        report.add("ok", "CLIP", f"{clip.id}, {clip.identity[:12]}")
    except CictlError as error:
        if reads_clip(config, "invert"):
            ask = not any(download.as_usual for download in downloads)
            downloads += _foresee(report, "CLIP", error, clip_request(model.clip, clip_revision), observe, ask=ask)
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


def _of_the_world(photograph: Photograph) -> bool:
    """Whether it is much larger than anything that the toybox draws."""
    return min(photograph.width, photograph.height) >= _LARGE


def _look_at(report: CheckReport, photographs: Sequence[Photograph], pictures: Sequence[np.ndarray], resolution: int) -> None:
    """Count, size, sharpness, doubles, and what all of them share besides the concept."""
    count = len(photographs)
    report.add("ok", "photographs", f"{count}: {', '.join(sorted(photograph.name for photograph in photographs))}")
    if not _FEW <= count <= _MANY:
        report.add("warning", "photographs", f"there are {count}", "three to six work best")
    for photograph, picture in sorted(zip(photographs, pictures, strict=True), key=lambda pair: pair[0].name):
        name = photograph.name
        shorter, longer = sorted((photograph.width, photograph.height))
        if longer >= _LONG * shorter:
            message = f"{name} is {photograph.width} x {photograph.height} pixels, of which only the square in the middle is used"
            report.add("warning", "photographs", message, "cut out what is meant, if that is not all of it")
        if min(photograph.width, photograph.height) < resolution:
            size = f"{photograph.width} x {photograph.height}"
            report.add("warning", "photographs", f"{name} is {size} pixels, and is enlarged to {resolution}", "take a larger one")
        elif diagnosis.sharpness(picture) < _BLURRED:  # what is enlarged often is
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
    pairs = combinations(range(len(pictures)), 2)
    alike = sorted(
        _both(photographs, one, other) for one, other in pairs if embeddings[one] @ embeddings[other] > _SAME_EMBEDDING
    )
    if alike:
        which = "" if len(alike) == 1 else " of each pair"
        message = f"CLIP can hardly tell {'; '.join(alike)} apart, so that Eq. 2 finds no difference between them"
        report.add("warning", "photographs", message, f"replace one{which} by a photograph of another place or from another side")


def _both(photographs: Sequence[Photograph], one: int, other: int) -> str:
    return " and ".join(sorted((photographs[one].name, photographs[other].name)))

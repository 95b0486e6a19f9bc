"""A workspace stays with the commit that it was trained with, also when its branch moves on. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from cictl.config import METHODS, Config, Stage, command_of
from cictl.events import Observer, Warned
from cictl.files import from_home, is_folder
from cictl.models import hub
from cictl.models.downloads import require_obtainable
from cictl.models.hub_listing import is_commit
from cictl.models.locate import Located, base_request, clip_request, locate_base, locate_clip
from cictl.records import Checkpoint, latest_checkpoint
from cictl.workspace import Workspace


@dataclass(frozen=True)
class Pins:
    """The commits that ``stage`` was trained with, None where ci.yaml now asks for another model, or a folder."""

    model: str | None = None
    clip: str | None = None
    stage: Stage = "invert"


def read_pins(workspace: Workspace, config: Config, stage: Stage = "invert", *, fresh: bool = False) -> Pins:
    """The commits that the last checkpoint of ``stage`` records, or, before it has one, that of stage 1.

    Args:
        fresh: pass over those of ``stage`` itself, since it starts anew.
    """
    asked: tuple[Stage, ...] = (stage, "invert") if stage in METHODS else ("invert",)  # stage 2 is on the commit of stage 1
    model, clip = config.model, config.model.clip
    for one in asked:
        if fresh and one == stage:
            continue
        checkpoint, _ = latest_checkpoint(workspace.stage_folder(one), verify=False)
        if checkpoint:
            return Pins(
                model=_pin(checkpoint, ("model.id", "model.revision", "identity.model"), model.id, model.revision),
                clip=_pin(checkpoint, ("model.clip", "model.clip_revision", "identity.clip"), clip, model.clip_revision),
                stage=one,
            )
    return Pins()


def find_base(config: Config, pins: Pins, observe: Observer) -> Located:
    """The base model at its pinned commit, or else at the revision of ci.yaml, downloaded if need be.

    The hub is asked whether the branch is elsewhere by now, for a warning; nothing depends on its answer.

    Raises:
        ModelAccessError, ResourceError: it cannot be had.
    """
    located = locate_base(config.model.id, pins.model or config.model.revision, observe=observe)
    if pins.model and not is_commit(config.model.revision):
        request = base_request(config.model.id, config.model.revision)
        head = hub.branch_head(request)
        if head not in (None, pins.model):
            observe(
                Warned(
                    f"{request.id}: {request.revision} has moved on the hub, to commit {head}. This workspace stays with "
                    f"{pins.model}, which it was trained with; {command_of(pins.stage)} --restart takes the new one"
                )
            )
    return located


def find_clip(config: Config, pins: Pins, observe: Observer) -> Located:
    """The CLIP model at its pinned commit, or else at the revision of ci.yaml, downloaded if need be.

    Raises:
        ModelAccessError, ResourceError: it cannot be had.
    """
    return locate_clip(config.model.clip, pins.clip or config.model.clip_revision, observe=observe)


def base_on_disk(config: Config, pins: Pins) -> Located:
    """What :func:`find_base` would find without a network.

    Raises:
        ModelAccessError: it is not on this machine, or cannot be read.
    """
    return locate_base(config.model.id, pins.model or config.model.revision, offline=True)


def foresee_base(config: Config, pins: Pins, observe: Observer) -> Located | None:
    """What :func:`find_base` would find, or None if it would be downloaded. Nothing is downloaded.

    Raises:
        ModelAccessError, ResourceError: as that.
    """
    request = base_request(config.model.id, pins.model or config.model.revision)
    return require_obtainable(partial(base_on_disk, config, pins), request, observe)


def require_models(config: Config, pins: Pins, observe: Observer, *, clip: bool) -> None:
    """What :func:`find_base` and, with ``clip``, :func:`find_clip` would find or download can be had. Nothing is downloaded.

    Raises:
        ModelAccessError, ResourceError: as they would.
    """
    foresee_base(config, pins, observe)
    if clip:
        model, revision = config.model.clip, pins.clip or config.model.clip_revision
        require_obtainable(partial(locate_clip, model, revision, offline=True), clip_request(model, revision), observe)


def _pin(checkpoint: Checkpoint, fields: tuple[str, str, str], model_id: str, revision: str | None) -> str | None:
    recorded = checkpoint.manifest["fingerprint"]["fields"]
    then, then_revision, identity = (recorded.get(field) for field in fields)
    same = then == model_id and (then_revision or hub.MAIN) == (revision or hub.MAIN)
    if not same or not is_commit(identity) or is_folder(from_home(model_id)):
        return None
    return str(identity)

"""Pictures of the noun that the untouched base draws, so that a method can keep what it meant. Made once, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cictl.config import Config, CustomDiffusionConfig, DreamBoothConfig, GenerateConfig, Training, command_of
from cictl.data.pixels import to_training_pixels
from cictl.data.png import open_png
from cictl.data.prompts import in_words
from cictl.errors import CictlError, StateError
from cictl.events import Note, Observer
from cictl.files import sha256_bytes
from cictl.models.locate import Located
from cictl.workflow.concept import Concept
from cictl.workflow.pictures import draw_pictures
from cictl.workflow.plans import Plan, make_plan
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from cictl.processes import Processes

FOLDER = "class"
SEEN = "class_pictures"  # in the manifest of a checkpoint: what it was trained with, in this order
_DRAWN_UNDER = ("cictl", "torch", "diffusers", "transformers", "device", "dtype", "threads")  # of a manifest's circumstances
_NOTHING_LEARNED = Concept("base", "", ())


def prior_of(settings: Training) -> DreamBoothConfig | CustomDiffusionConfig | None:
    """The settings of a method that has a loss on class pictures; None for the others."""
    if isinstance(settings, DreamBoothConfig | CustomDiffusionConfig) and settings.prior_weight > 0:
        return settings
    return None


def missing_pictures(workspace: Workspace, config: Config, base: Located, settings: Training) -> int:
    """How many class pictures a training would draw first."""
    if not (prior := prior_of(settings)):
        return 0
    plans = _plans(as_drawn(config), base, in_words(prior.prompt, config.evaluate.noun), prior.class_pictures)
    return sum(not (workspace.outputs / FOLDER / plan.file_name).exists() for plan in plans)


def class_pictures(
    workspace: Workspace,
    config: Config,
    base: Located,
    prompt: str,
    count: int,
    observe: Observer,
    *,
    again: str,
    processes: Processes,
) -> list[np.ndarray]:
    """``count`` pictures of ``prompt`` as training sees them, [3, R, R] in [-1, 1], without those that a safety checker blanked.

    They lie in outputs/class/. How they are sampled is fixed (the defaults of ``generate``), so that a training which
    goes on has the same ones, whatever ci.yaml says about pictures by then.

    Args:
        again: the command that would go on, for the message of an interruption.
        processes: those that share the work.

    Raises:
        CictlError: all were blanked.
        Interrupted, ProcessLost: as :func:`draw_pictures`.
    """
    config = as_drawn(config)
    plans = _plans(config, base, prompt, count)
    folder = workspace.outputs / FOLDER
    observe(Note(f"class pictures: {count} of {prompt!r}, drawn by {base.id}, in {workspace.shown(folder)}"))
    drawn = draw_pictures(config, base, _NOTHING_LEARNED, plans, folder, observe, again=again, processes=processes)
    blanked = set(processes.share(lambda: drawn.blanked))
    kept = [path for path in drawn.paths if path not in blanked]
    if not kept:
        raise CictlError(
            f"the base model's safety checker blanked all {count} class pictures of {prompt!r}",
            "try another --noun; --set generate.safety_checker=off draws without it",
            slug="class-pictures-all-blanked",
        )
    return [_pixels(path, config.data.resolution) for path in kept]


def identity_of(pixels: np.ndarray) -> str:
    """What tells a class picture from every other: of its pixels as training sees them."""
    return sha256_bytes(pixels.tobytes())[:16]


def require_same_class_pictures(workspace: Workspace, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """A training that goes on must see the class pictures that it began with.

    Args:
        before, now: what the manifest of its checkpoint says, and what that of its next one would say.

    Raises:
        StateError: they are others.
    """
    seen, found = before.get(SEEN, []), now[SEEN]
    if not seen or seen == found:
        return
    command, checked = command_of(now["stage"]), before["config"]["generate"]["safety_checker"]
    folder, other = workspace.shown(workspace.outputs / FOLDER), _drawn_otherwise(before, now)
    again = f"{command} --set generate.safety_checker={checked}" if checked != now["config"]["generate"]["safety_checker"] else ""
    if again and ({*seen} <= {*found} or {*found} <= {*seen}):  # no more than what the checker leaves out
        way = f"to go on: {again}"
    else:
        back = f"set back what differs ({other}), then " if other else ""
        way = f"to have them drawn again as they were: {back}delete {folder}{f', then: {again}' if again else ''}"
    raise StateError(
        f"{command} has seen {len(seen)} class pictures so far, and would now see {len(found)}, of them "
        f"{len({*seen} & {*found})} the same",
        f"{way}; or start anew: {command} --restart",
        slug="class-pictures-changed",
    )


def _drawn_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What has changed of all that the bits of a drawn picture depend on, beside its own settings."""
    pairs = {name: [manifest.get("circumstances", {}).get(name) for manifest in (before, now)] for name in _DRAWN_UNDER}
    pairs["generate.batch_size"] = [manifest["config"]["generate"]["batch_size"] for manifest in (before, now)]
    return ", ".join(f"{name} {then} -> {found}" for name, (then, found) in pairs.items() if then not in (None, found))


def as_drawn(config: Config) -> Config:
    """``config`` with the settings that class pictures are drawn with."""
    own = GenerateConfig(batch_size=config.generate.batch_size, safety_checker=config.generate.safety_checker)
    return config.model_copy(update={"generate": own})


def _plans(config: Config, base: Located, prompt: str, count: int) -> list[Plan]:
    seeds = range(config.seed, config.seed + count)
    return [make_plan(config, base, _NOTHING_LEARNED, prompt, prompt, seed) for seed in seeds]


def _pixels(path: Path, resolution: int) -> np.ndarray:
    with open_png(path) as image:
        return to_training_pixels(image.convert("RGB"), resolution)

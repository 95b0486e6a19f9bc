"""One concept, trained in one way: pictures drawn, judged, and written down. Goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.toybox_suite.arms import PRESET, THE_NOUN, Arm, Training
from cictl.config import METHODS, STAGES, group_of, settings_of
from cictl.config.templates import kind_overlay, preset_for
from cictl.data.png import write_png
from cictl.files import write_atomic
from cictl.models.locate import locate_base
from cictl.records import latest_checkpoint
from cictl.toybox.concepts import ToyConcept
from cictl.toybox.tasks import tasks
from cictl.workflow.stage import configure
from cictl.workspace import Workspace

AUXILIARY_COUNT = 4  # pictures of each A_i*
_SHAPING = ("model", "data", "invert", "finetune", "generate")  # groups of ci.yaml that change pictures
_CONCEPT = "shared"  # what every concept is called inside: the token's start must not depend on it


@dataclass(frozen=True)
class Job:
    """All arms of one training of one concept.

    Attributes:
        folder: of the suite.
        arms: that are drawn from the same training, or from the base.
        seeds: pictures a prompt; the noise of a seed is the same in all arms.
        seed: of the training. Pictures are drawn with the same noise whatever it is.
    """

    folder: Path
    concept: ToyConcept
    training: Training | None
    arms: tuple[Arm, ...]
    seeds: int
    seed: int = 0

    @property
    def name(self) -> str:
        again = f"-seed-{self.seed}" if self.seed else ""
        return f"{self.training.name if self.training else 'base'}{again}/{self.concept.name}"

    @property
    def result(self) -> Path:
        """Where the readings are written, once all is done."""
        return self.folder / "results" / f"{self.name}.json"


def identity(job: Job) -> dict[str, Any]:
    """What the results depend on; a result of another identity is made again."""
    prompts = [_prompt(task, arm) for arm in job.arms for task in tasks(job.concept)]
    drawn = {"prompts": prompts, "after": [arm.share for arm in job.arms], "seeds": job.seeds}
    ways = [(arm.strength, arm.avoid) for arm in job.arms]
    return {**_trained_from(job), **drawn, **({"drawn with": ways} if any(way != (1.0, 0.0) for way in ways) else {})}


def _trained_from(job: Job) -> dict[str, Any]:
    scenes = [dataclasses.asdict(scene) for scene in job.concept.scenes]
    own = (group_of(job.training.method),) if job.training and job.training.method else ()
    preset = {group: values for group, values in preset_for("toybox").items() if group in (*_SHAPING, *own)}
    overrides = _overrides(job)
    return {
        "weights": locate_base("toybox").identity,
        "scenes": scenes,
        "overrides": overrides,
        "preset": preset,
        "prompts of training": kind_overlay(job.concept.kind, "toybox"),
    }


def done(job: Job) -> dict[str, Any] | None:
    """The result of ``job`` if it is there and of the same identity."""
    try:
        result: dict[str, Any] = json.loads(job.result.read_text())
    except (OSError, ValueError):
        return None
    return result if result["identity"] == json.loads(json.dumps(identity(job))) else None


def run(job: Job) -> str:
    """Train, draw, judge; write ``job.result``. Returns the job's name."""
    if done(job):
        return job.name
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    workspace = _workspace(job)
    seconds = _train(job, workspace) if job.training else {}
    read = _reader()
    result: dict[str, Any] = {"identity": identity(job), "seconds": seconds, "steps": _steps_done(workspace), "arms": {}}
    for arm in job.arms:
        result["arms"][arm.name] = {"readings": [read(pictures) for pictures in _draw(job, arm, workspace)]}
    if job.training and not job.training.method and job.training.overrides.get("invert.auxiliary_vectors") != 0:
        result["auxiliary"] = [read(pictures) for pictures in _draw_auxiliary(workspace)]
    write_atomic_in(job.result, json.dumps(result).encode())
    return job.name


def ceiling(concept: ToyConcept, seeds: int) -> list[list[dict[str, str]]]:
    """What the judge reads in real renders of exactly what the prompts ask for."""
    read = _reader()
    from cictl.toybox.world.render import render

    rng = np.random.default_rng(0)
    return [read([render(task.scene, rng)[0] for _ in range(seeds)]) for task in tasks(concept)]


def write_atomic_in(path: Path, content: bytes) -> None:
    """Write a whole file, in a folder that may have to be made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)


def _workspace(job: Job) -> Workspace:
    """The workspace of this training, new if it is not there; stage 1 is the preset's own where only stage 2 differs."""
    from cictl.workflow import init

    folder = _folder(job)
    if (folder / "ci.yaml").exists():
        return Workspace(folder)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted start left
    for number, pixels in enumerate(job.concept.photographs(), 1):
        write_png(folder / "images" / f"{number}.png", pixels)
    workspace = init.run(folder, model="toybox", kind=job.concept.kind, name=_CONCEPT)
    if _differs_in_stage_2_alone(job) and (preset := dataclasses.replace(job, training=PRESET)).result.exists():
        inverted = Workspace(_folder(preset)).stage_folder("invert")
        if inverted.exists():
            shutil.copytree(inverted, workspace.stage_folder("invert"))
    return workspace


def _differs_in_stage_2_alone(job: Job) -> bool:
    overrides = job.training.overrides if job.training else {}
    return bool(overrides) and all(key.startswith("finetune.") for key in overrides)


def _overrides(job: Job) -> dict[str, Any]:
    """Of ci.yaml, for training; nothing of a seed that is the default, so that older results stay."""
    return {**(job.training.overrides if job.training else {}), **({"seed": job.seed} if job.seed else {})}


def _folder(job: Job) -> Path:
    digest = hashlib.sha256(json.dumps(_trained_from(job), sort_keys=True).encode()).hexdigest()[:8]
    return job.folder / "workspaces" / f"{job.name}-{digest}"


def _train(job: Job, workspace: Workspace) -> dict[str, float]:
    """Both stages, or the method; how long each took, in seconds of wall clock."""
    from cictl.workflow import baseline, finetune, invert

    assert job.training is not None
    noun = job.concept.look.noun
    overrides = {key: noun if value == THE_NOUN else value for key, value in _overrides(job).items()}
    if method := job.training.method:
        began = time.monotonic()
        baseline.run(workspace, method, _quiet, overrides={**overrides, "evaluate.noun": noun})
        return {method: round(time.monotonic() - began, 1)}
    first = {key: value for key, value in overrides.items() if not key.startswith("finetune.")}
    began = time.monotonic()
    invert.run(workspace, _quiet, overrides=first)
    between = time.monotonic()
    finetune.run(workspace, _quiet, overrides=overrides)
    return {"invert": round(between - began, 1), "finetune": round(time.monotonic() - between, 1)}


def _steps_done(workspace: Workspace) -> dict[str, int]:
    """How many steps each training has, which may have ended early."""
    found = {stage: latest_checkpoint(workspace.stage_folder(stage), verify=False)[0] for stage in (*STAGES, *METHODS)}
    return {stage: checkpoint.step for stage, checkpoint in found.items() if checkpoint}


def _draw(job: Job, arm: Arm, workspace: Workspace) -> list[list[np.ndarray]]:
    """The pictures of each task."""
    from cictl.workflow import generate

    prompts = [_prompt(task, arm) for task in tasks(job.concept)]
    source: Any = arm.drawn if arm.training else "base"
    way = {"generate.strength": arm.strength, "generate.avoid": arm.avoid}
    overrides = {"generate.count": job.seeds, "generate.batch_size": 20, "seed": 0, **way}
    made = generate.run(workspace, prompts, _quiet, overrides=overrides, source=source, step=_step(arm, workspace))
    paths: dict[str, list[Path]] = {}
    for picture in made.pictures:
        paths.setdefault(picture["prompt"], []).append(Path(picture["path"]))
    return [[_pixels(path) for path in paths[prompt]] for prompt in prompts]


def _draw_auxiliary(workspace: Workspace) -> list[list[np.ndarray]]:
    """Pictures of A_i*, for each photograph in their order."""
    from cictl.workflow import preview_aux

    overrides = {"generate.count": AUXILIARY_COUNT, "generate.batch_size": 20, "seed": 0}
    made = preview_aux.run(workspace, _quiet, overrides=overrides)
    labels = [f"A photo of A* ({path.name})" for path in sorted(workspace.images.iterdir())]
    return [[_pixels(Path(one["path"])) for one in made.pictures if one["prompt"] == label] for label in labels]


def _prompt(task: Any, arm: Arm) -> str:
    return {"words": task.words, "chance": task.chance, "noun": task.noun}.get(arm.drawn, task.prompt)


def _step(arm: Arm, workspace: Workspace) -> int | None:
    """The step that an arm is drawn after, or None for the last."""
    if arm.share == 1:
        return None
    stage: Any = arm.drawn
    return round(arm.share * settings_of(configure(workspace, {}, upto=stage), stage).steps)


def _reader() -> Any:
    from cictl.toybox.judge import load_judge, read

    judge = load_judge(locate_base("toybox").folder)
    return lambda pictures: read(judge, np.stack(pictures))


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _quiet(event: Any) -> None:
    """Events are not shown."""

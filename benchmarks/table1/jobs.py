"""One subject and one method: trained, drawn, measured, and written down. Goes on where it was stopped."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cictl
from benchmarks.table1.dreambench import Subject
from cictl.config import STAGES, Config, Sources, commented_yaml, load_config, settings_of, trajectory
from cictl.config.stages import BEFORE
from cictl.data.photographs import fingerprints
from cictl.errors import CictlError, Interrupted
from cictl.events import Observer
from cictl.files import write_atomic
from cictl.ui.display import Mode, show
from cictl.workflow import evaluate, init
from cictl.workflow.concept import Source
from cictl.workflow.prompt_sets import choose_prompts
from cictl.workflow.results import Results
from cictl.workflow.rows import draw_and_measure
from cictl.workflow.trainings import stages_of, train_stage
from cictl.workspace import CONFIG_NAME, Workspace, slug

OURS = "contrastive-inversion"
FOLDER = "table1"
_LIBRARIES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Job:
    """The rows of one training of one subject. Both stages are one job, since the second is trained on the first.

    Attributes:
        work: the folder of all workspaces and results; of jobs on several machines a shared one.
        rows: what is drawn, by the names of ``cictl compare``.
        model: the base, as model.id of ci.yaml; None is Stable Diffusion 1.5.
        overrides: of ci.yaml, by dotted key.
        last_alone: measure what a training ended with, not what it has kept along the way.
    """

    work: Path
    subject: Subject
    rows: tuple[Source, ...]
    model: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    last_alone: bool = False

    @property
    def name(self) -> str:
        return f"{self.subject.name}/{OURS if self.rows[0] in STAGES else self.rows[0]}"

    @property
    def workspace(self) -> Workspace:
        """Of this job alone, so that no two wait for each other's lock."""
        return Workspace(self.work / self.name)

    def result(self, row: Source) -> Path:
        """Where the figures of a row are written, once all of them are known."""
        return self.work / "results" / row / f"{self.subject.name}.json"


def plan(work: Path, subjects: Sequence[Subject], rows: Sequence[Source], **common: Any) -> list[Job]:
    """A job for each subject and training."""
    groups = [(row,) for row in rows if row not in STAGES]
    ours = tuple(row for row in rows if row in STAGES)
    return [Job(work, subject, group, **common) for group in [*groups, *([ours] if ours else [])] for subject in subjects]


def settings(job: Job) -> Config:
    """The job's ci.yaml: the paper's settings for this subject, under the overrides.

    Raises:
        UsageError: an override cannot be used.
    """
    noun = job.subject.noun
    own = {"concept.name": _concept(job), "evaluate.noun": noun, "evaluate.prompts": job.subject.prompt_set}
    if job.model:
        own["model.id"] = job.model
    if " " in noun:  # Textual Inversion's token starts as one word: of "stuffed animal" the last
        own["textual_inversion.start"] = noun.split()[-1]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONFIG_NAME
        file.touch()  # of hundreds of jobs, so that there is nothing to read: YAML is slow
        return load_config(Sources(file, overrides={**own, **job.overrides}))


def _concept(job: Job) -> str:
    return slug(job.subject.name, 40)


def identity(job: Job, row: Source) -> dict[str, Any]:
    """What each figure of a row depends on; a result of another identity is made again."""
    config = settings(job)
    trained = {}
    if row != "base":
        steps = {stage: settings_of(config, stage).steps for stage in (*BEFORE[row], row)}
        trained = {"steps": steps, **trajectory(config, row)}
    return {
        "photographs": sorted(fingerprints(job.subject.photographs).values()),
        "prompts": choose_prompts(config, job.work, None).prompts,
        "model": config.model.model_dump(exclude={"device"}),
        "trained": trained,
        "drawn": config.generate.model_dump(exclude={"batch_size", "count"}),
        "measured": config.evaluate.model_dump(),
        "resolution": config.data.resolution,
        "seed": config.seed,
    }


def done(job: Job, row: Source) -> dict[str, Any] | None:
    """The result of a row if it is there, of the same identity, and has in it what is to be measured."""
    try:
        result: dict[str, Any] = json.loads(job.result(row).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if result["identity"] != json.loads(json.dumps(identity(job, row))):
        return None
    return None if result["last_alone"] and not job.last_alone else result


def attempt(job: Job) -> str:
    """Do a job. Returns what went wrong, if anything; others can go on.

    Raises:
        Interrupted: by a signal, after a checkpoint.
    """
    try:
        run(job)
    except Interrupted:
        raise
    except CictlError as error:
        return f"{error.message}\n  -> {error.hint}"
    except Exception as error:  # whatever it is, it is this job's
        return f"{type(error).__name__}: {error}"
    return ""


def run(job: Job) -> None:
    """Train, draw, measure what is missing; write the result of each row."""
    missing = [row for row in job.rows if not done(job, row)]
    if not missing:
        return
    workspace = _prepare(job)
    with show(Mode.quiet, title=job.name) as observe:
        evaluate.require_measurable(workspace, settings(job), observe)  # before hours of training
        for row in missing:
            _train(workspace, row, settings(job), observe)
            out = workspace.outputs / FOLDER
            found = [one.measured for one in draw_and_measure(workspace, [row], observe, out=out, last_alone=job.last_alone)[row]]
            job.result(row).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(job.result(row), json.dumps(_result(job, row, found), indent=1, ensure_ascii=False).encode())


def _result(job: Job, row: Source, found: Sequence[Results]) -> dict[str, Any]:
    """What is written of a row; its figures by the steps that were done."""
    last = found[0]
    return {
        "subject": job.subject.name,
        "noun": job.subject.noun,
        "row": row,
        "identity": identity(job, row),
        "last_alone": job.last_alone and row != "base",
        "steps": last.steps,
        "figures": {str(one.steps): {name: asdict(score) for name, score in one.overall.items()} for one in found},
        "models": {"base": last.base, "dinov2": last.dinov2, "clip": last.clip},
        "prompt_set": last.prompt_set,
        "count": last.count,
        "sampling": last.sampling,
        "circumstances": _circumstances(settings(job)),
    }


def _prepare(job: Job) -> Workspace:
    """The workspace with the job's settings, which nothing but its ci.yaml holds."""
    workspace = job.workspace
    if not workspace.config_file.exists():
        shutil.rmtree(workspace.root, ignore_errors=True)  # what an interrupted start left
        init.run(workspace.root, model=job.model, images=[job.subject.photographs], name=_concept(job))
    ours, theirs = (set(fingerprints(folder).values()) for folder in (workspace.images, job.subject.photographs))
    if ours != theirs:
        raise RuntimeError(f"the photographs in {job.subject.photographs} are no longer those of {workspace.images}")
    write_atomic(workspace.config_file, commented_yaml(settings(job)).encode())
    return workspace


def _train(workspace: Workspace, row: Source, config: Config, observe: Observer) -> None:
    for outcome in [train_stage(workspace, stage, {}, observe) for stage in stages_of([row])]:
        asked = settings_of(config, outcome.stage).steps
        if outcome.steps != asked:
            raise RuntimeError(
                f"{outcome.stage} has been trained for {outcome.steps} steps, not for {asked}: take another --work"
            )


def _circumstances(config: Config) -> dict[str, Any]:
    """The machine and the libraries that the figures come from."""
    import torch

    from cictl.engine.runtime import Runtime

    runtime = Runtime.create(config.model.device, config.model.dtype)
    on_gpu = runtime.device.type == "cuda"
    device = torch.cuda.get_device_name(runtime.device) if on_gpu else f"{runtime.device.type}, {platform.machine()}"
    libraries = {name: version(name) for name in _LIBRARIES}
    return {
        "device": device,
        "dtype": runtime.dtype_name,
        "cictl": cictl.__version__,
        "python": platform.python_version(),
        **libraries,
    }

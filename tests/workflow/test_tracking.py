"""tracking.to: the curves, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
import json
import shutil
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cictl.errors import CictlError, Interrupted, UsageError
from cictl.events import Progress, StepCompleted
from cictl.workflow import finetune, invert
from cictl.workflow.base_model import preview_path
from cictl.workflow.tracking import tensorboard_folder
from tests.several import run_together
from tests.support import Recorder, left_by, silent

RUN = {"invert": invert.run, "finetune": finetune.run}
TRACKED = {"tracking.to": ["tensorboard"], "tracking.interval": 3}


def curves(workspace, stage):
    """Every series of a stage, and its reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tensorboard_folder(workspace, stage) / "my-teapot"
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    series = {name: [(point.step, point.value) for point in reader.Scalars(name)] for name in reader.Tags()["scalars"]}
    return series, reader


def as_written(workspace, stage, term):
    """The losses of the log, as float32, which is what TensorBoard keeps."""
    return [(step, float(np.float32(losses[term]))) for step, losses in left_by(workspace, stage).losses]


@pytest.mark.parametrize("stage", ["invert", "finetune"])
def test_tensorboard_reads_losses_rates_memory_and_previews(copy_of_trained, stage):
    told_of = Recorder()
    RUN[stage](copy_of_trained, told_of, restart=True, overrides={**TRACKED, "preview.interval": 3, "preview.steps": 2})
    series, reader = curves(copy_of_trained, stage)
    terms = {"invert": {"diffusion", "contrastive"}, "finetune": {"diffusion"}}[stage]
    assert {name.removeprefix("loss/") for name in series if name.startswith("loss/")} == terms
    for term in terms:
        assert series[f"loss/{term}"] == as_written(copy_of_trained, stage, term)
    told = [3, 4, 6, 8] if stage == "invert" else [3, 4, 6]  # where it is due, and at each checkpoint
    rate = {"invert": 0.01, "finetune": 0.001}[stage]
    assert series["rate/learning"] == [(step, float(np.float32(rate))) for step in told]
    progress = [event for event in told_of.events if isinstance(event, Progress)]
    assert [event.step for event in progress] == told
    for name, values in {
        "rate/steps a second": [1 / event.seconds_per_step for event in progress],
        "memory/allocated MiB": [event.memory.allocated / 2**20 for event in progress],
        "memory/peak MiB": [event.memory.peak / 2**20 for event in progress],
    }.items():
        assert series[name] == [(step, float(np.float32(value))) for step, value in zip(told, values, strict=True)]
        assert all(value > 0 for value in values)
    pictures = reader.Images("preview")
    assert [picture.step for picture in pictures] == [3, 6]
    for picture in pictures:
        with (
            Image.open(io.BytesIO(picture.encoded_image_string)) as seen,
            Image.open(preview_path(copy_of_trained, stage, picture.step)) as drawn,
        ):
            assert np.array_equal(np.asarray(seen), np.asarray(drawn.convert("RGB")))


def test_a_run_that_goes_on_continues_its_curves_and_has_no_step_twice(make_workspace):
    workspace, uninterrupted = make_workspace(), make_workspace("uninterrupted")
    with pytest.raises(Interrupted):
        invert.run(workspace, Recorder(stop_after=6), overrides={**TRACKED, "tracking.interval": 1})
    # as SIGKILL after step 6 would leave it: told of six steps, with a checkpoint of four
    shutil.rmtree(workspace.stage_folder("invert") / "step-0000006")
    assert curves(workspace, "invert")[0]["loss/diffusion"][-1][0] == 6
    outcome = invert.run(workspace, silent)
    assert (outcome.action, outcome.first_step) == ("resume", 4)
    series, _ = curves(workspace, "invert")
    invert.run(uninterrupted, silent)
    for term in ("diffusion", "contrastive"):
        assert series[f"loss/{term}"] == as_written(uninterrupted, "invert", term)
        assert len(series[f"loss/{term}"]) == 8


def test_a_restart_puts_the_curves_aside(make_workspace):
    workspace = make_workspace()
    invert.run(workspace, silent, overrides=TRACKED)
    invert.run(workspace, silent, overrides={**TRACKED, "invert.steps": 2}, restart=True)
    assert [step for step, _ in curves(workspace, "invert")[0]["loss/diffusion"]] == [1, 2]
    (archived,) = workspace.checkpoints.glob("archive/invert-*")
    assert list((archived / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_curves_change_neither_the_training_nor_who_else_is_told(make_workspace):
    tracked, plain, recorder = make_workspace(), make_workspace("plain"), Recorder()
    invert.run(tracked, recorder, overrides=TRACKED)
    invert.run(plain, silent)
    assert left_by(tracked, "invert").losses == left_by(plain, "invert").losses
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == list(range(1, 9))
    assert not tensorboard_folder(plain, "invert").exists()


def test_of_several_processes_the_first_alone_tracks(make_workspace, tmp_path):
    workspace = make_workspace()
    ended = run_together(2, tmp_path / "run", "invert", "-C", str(workspace.root), "--set=tracking.to=[tensorboard]")
    assert ended.codes == [0, 0], ended
    series, _ = curves(workspace, "invert")
    assert series["loss/diffusion"] == as_written(workspace, "invert", "diffusion")
    assert len(list(tensorboard_folder(workspace, "invert").rglob("events.out.tfevents.*"))) == 1


def test_a_tracker_that_is_not_installed_is_named_before_anything_is_done(make_workspace, monkeypatch):
    workspace = make_workspace()
    monkeypatch.setattr("cictl.workflow.tracking.find_spec", lambda name: None if name == "comet_ml" else find_spec(name))
    with pytest.raises(UsageError, match=r"tracking\.to names comet_ml, which is not installed") as caught:
        invert.run(workspace, silent, overrides={"tracking.to": ["tensorboard", "comet_ml"]})
    assert caught.value.hint.startswith("pip install comet-ml")
    assert not workspace.stage_folder("invert").exists()


def test_a_tracker_that_nobody_knows_is_a_mistake_in_the_config(make_workspace):
    with pytest.raises(UsageError, match=r"tracking\.to"):
        invert.run(make_workspace(), silent, overrides={"tracking.to": ["tensorbord"]})


def test_a_tracker_that_cannot_start_says_why_and_how_to_do_without(make_workspace, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no account")

    workspace = make_workspace()
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", fail)
    with pytest.raises(CictlError, match="tensorboard cannot be started: no account") as caught:
        invert.run(workspace, silent, overrides=TRACKED)
    assert "tracking.to=[]" in caught.value.hint


@pytest.mark.filterwarnings("ignore:.log_with:UserWarning")
def test_another_tracker_is_told_the_same_under_the_name_of_the_concept(make_workspace, monkeypatch):
    """On a stand-in, since it is not installed: what matters is what accelerate is asked for, and told."""
    told: list[tuple[int, dict[str, float]]] = []
    asked: dict[str, object] = {}

    def start(self, project: str, init_kwargs: dict[str, object]) -> None:
        asked.update(project=project, options=init_kwargs["wandb"])
        log = lambda values, step: told.append((step, values))  # noqa: E731
        self.trackers = [SimpleNamespace(name="wandb", log=log, finish=lambda: told.append((-1, {})))]

    monkeypatch.setattr("cictl.workflow.tracking.find_spec", lambda name: True)
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", start)
    workspace = make_workspace()
    invert.run(workspace, silent, overrides={"tracking.to": ["wandb"], "preview.interval": 4, "preview.steps": 2})
    assert asked["project"] == "my-teapot"
    assert asked["options"]["name"] == "invert"
    assert [step for step, values in told if "loss/diffusion" in values] == list(range(1, 9))
    assert [step for step, _ in told] == [*sorted(step for step, _ in told[:-1]), -1]  # in order, and then finished
    assert json.dumps(told)  # plain numbers, which every tracker takes

"""A training that may end early: where it ends, that it is then done, and that its steps are the same."""

from __future__ import annotations

import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from cictl.config import InvertConfig
from cictl.errors import Interrupted
from cictl.events import LossEvaluated, Note, StageCompleted, Warned
from cictl.models.stable_diffusion import StableDiffusion
from cictl.records import latest_checkpoint
from cictl.workflow import baseline, finetune, invert, status
from cictl.workflow.stopping import never_stops
from cictl.workspace import Workspace
from tests.support import Recorder, assert_left_the_same, assert_same_bits, left_by, silent

STEPS, EVERY, WINDOW = 24, 2, 8
RULE = {"invert.steps": STEPS, "invert.stop_every": EVERY, "invert.stop_window": WINDOW}


def train(workspace: Workspace, observe=silent, **overrides):
    return invert.run(
        workspace, observe, overrides={**RULE, **{key.replace("__", "."): value for key, value in overrides.items()}}
    )


def evaluations(recorder: Recorder) -> list[LossEvaluated]:
    return [event for event in recorder.events if isinstance(event, LossEvaluated)]


def copy(workspace: Workspace, to: Path) -> Workspace:
    return Workspace(shutil.copytree(workspace.root, to))


@pytest.fixture(scope="module")
def watched(tmp_path_factory, base, photographs):
    """All steps, evaluated, under a ratio that nothing falls below; and the evaluations."""
    from cictl.workflow import init
    from tests.support import quick, write_settings

    workspace = init.run(tmp_path_factory.mktemp("watched") / "my-teapot", model=str(base), images=photographs, name="my-teapot")
    write_settings(workspace, quick(base))
    recorder = Recorder()
    assert train(workspace, recorder, invert__stop_ratio=1e-9).steps == STEPS
    return workspace, evaluations(recorder)


@pytest.fixture
def new(make_workspace) -> Workspace:
    return make_workspace()


@pytest.fixture(scope="module")
def ratio(watched) -> float:
    """One that ends the training in its middle."""
    return float(np.median([event.ratio for event in watched[1][WINDOW // EVERY :]])) * 1.0001


def naive_end(losses: list[float], ratio: float) -> int:
    count = WINDOW // EVERY
    for number in range(count, len(losses) + 1):
        if np.var(losses[:number][-count:]) / np.var(losses[:number]) < ratio:
            return number * EVERY
    raise AssertionError("it does not end early")


def test_it_ends_where_a_naive_reading_of_the_losses_says_with_the_bits_of_so_many_steps(watched, ratio, new, make_workspace):
    losses = [event.loss for event in watched[1]]
    assert [event.step for event in watched[1]] == list(range(EVERY, STEPS + 1, EVERY))
    end = naive_end(losses, ratio)
    assert WINDOW < end < STEPS
    recorder = Recorder()
    outcome = train(new, recorder, invert__stop_ratio=ratio)
    assert outcome.steps == end and outcome.ended_early in recorder.texts(Note)
    assert next(event for event in recorder.events if isinstance(event, StageCompleted)).steps == end
    assert [event.loss for event in evaluations(recorder)] == losses[: end // EVERY]
    plain = make_workspace("plain")
    invert.run(plain, silent, overrides={"invert.steps": end})
    assert_left_the_same(left_by(new, "invert"), left_by(plain, "invert"))


def test_evaluating_changes_no_bit(watched, new):
    train(new, invert__stop_every=0)
    assert_left_the_same(left_by(new, "invert"), left_by(watched[0], "invert"))
    checkpoint, _ = latest_checkpoint(new.stage_folder("invert"))
    assert checkpoint and "evaluations" not in checkpoint.manifest


@pytest.mark.parametrize("stops", [[1], [6], [9, 10, 11]])
def test_a_run_that_was_stopped_ends_at_the_same_step_with_the_same_bits(ratio, new, make_workspace, stops):
    whole = make_workspace("whole")
    train(whole, invert__stop_ratio=ratio)
    for step in stops:
        with pytest.raises(Interrupted):
            train(new, Recorder(stop_after=step), invert__stop_ratio=ratio, tracking__interval=1)
        assert left_by(new, "invert").step == step
    train(new, invert__stop_ratio=ratio)
    assert_left_the_same(left_by(new, "invert"), left_by(whole, "invert"))
    records = [latest_checkpoint(one.stage_folder("invert"))[0].manifest["evaluations"] for one in (new, whole)]
    assert records[0] == records[1]


def test_it_is_then_done_for_the_next_command_for_status_and_for_stage_2(ratio, new):
    first = train(new, invert__stop_ratio=ratio)
    again = invert.run(new, silent)
    assert (again.action, again.steps, again.ended_early) == ("skip", first.steps, first.ended_early)
    assert train(new, invert__steps=2 * STEPS).action == "skip"  # such a run would have ended there, too
    stage = status.run(new).stages[0]
    assert (stage.state, stage.step, stage.steps) == ("done", first.steps, STEPS)
    assert f"after {first.steps} of {STEPS} steps" in stage.ended_early
    assert finetune.run(new, silent).action == "run"


def test_without_the_rule_it_goes_on_to_the_bits_of_all_steps(watched, ratio, new):
    train(new, invert__stop_ratio=ratio)
    outcome = train(new, invert__stop_every=0)
    assert (outcome.action, outcome.steps, outcome.ended_early) == ("resume", STEPS, "")
    assert_left_the_same(left_by(new, "invert"), left_by(watched[0], "invert"))


def test_a_smaller_ratio_goes_on_with_the_evaluations_that_there_are(watched, ratio, new):
    train(new, invert__stop_ratio=ratio)
    recorder = Recorder()
    assert train(new, recorder, invert__stop_ratio=1e-9).steps == STEPS
    made = evaluations(recorder)
    assert made == watched[1][-len(made) :] and len(made) < len(watched[1])


def test_a_run_that_is_stopped_between_evaluations_is_not_done_whatever_the_ratio(new):
    """The evaluations so far may lie below a ratio that is given later; only one that is made says that it ends there."""
    for step, ratio in ((13, 1e-9), (14, 0.999)):
        with pytest.raises(Interrupted, match=f"{step} of {STEPS}"):
            train(new, Recorder(stop_after=step), invert__stop_every=4, invert__stop_ratio=ratio, tracking__interval=1)
        saved, _ = latest_checkpoint(new.stage_folder("invert"))
        assert saved and not saved.complete
    assert train(new, invert__stop_every=4, invert__stop_ratio=0.999).steps == 16


def test_evaluations_at_other_distances_begin_anew(ratio, new):
    train(new, invert__stop_ratio=ratio)
    recorder = Recorder()
    assert train(new, recorder, invert__stop_every=1, invert__stop_ratio=1e-9).action == "resume"
    assert [event.ratio for event in evaluations(recorder)[:WINDOW]] == [1.0] * WINDOW


def test_a_window_in_which_nothing_can_end_is_warned_of(new):
    recorder = Recorder()
    assert train(new, recorder, invert__steps=4, invert__stop_window=4).steps == 4
    (warning,) = recorder.texts(Warned)
    assert "invert.stop_window of 4" in warning and "cannot end early" in warning


def can_end_early(steps: int, every: int, window: int) -> bool:
    """Whether there is a step before the last with an evaluation at which DVAR's ratio, in its own words, can be below 1."""
    count = max(2, window // every)
    return any(number > count for number in range(1, len(range(every, steps, every)) + 1))


def test_the_warning_comes_where_no_run_can_end_early_and_what_it_says_helps():
    for steps, every, window in product((1, 2, 3, *range(4, 60, 3)), range(1, 20), range(2, 60, 4)):
        said = never_stops("invert", InvertConfig(steps=steps, stop_every=every, stop_window=window))
        assert bool(said) != can_end_early(steps, every, window)
        if said and "too short" not in said:
            often, wide = map(int, re.findall(r"stop_(?:every|window)=(\d+)", said))
            assert can_end_early(steps, often, wide)
            InvertConfig(stop_every=often, stop_window=wide)
        elif said:
            assert not any(can_end_early(steps, often, wide) for often in range(1, steps) for wide in range(2, steps + 1))
    for steps, every, window in ((350, 100, 310), (600, 300, 310), (500, 200, 310), (150, 75, 310)):
        assert never_stops("invert", InvertConfig(steps=steps, stop_every=every, stop_window=window))


def test_stage_2_has_the_rule(copy_of_trained):
    settings = {"finetune.steps": 12, "finetune.stop_every": 1, "finetune.stop_window": 3, "finetune.stop_ratio": 0.99}
    tuned = finetune.run(copy_of_trained, silent, overrides=settings, restart=True)
    assert tuned.steps < 12 and tuned.ended_early


@pytest.mark.parametrize(("method", "prior"), [("dreambooth", {"prior_weight": 1.0, "class_pictures": 3}), ("disenbooth", {})])
def test_the_other_methods_have_the_rule_and_are_judged_from_one_pass_through_the_unet(new, monkeypatch, method, prior):
    rule = {"steps": 12, "batch_size": 4, "stop_every": 1, "stop_window": 3, "stop_ratio": 0.99, **prior}
    passes: list[bool] = []
    predict = StableDiffusion.predict
    monkeypatch.setattr(StableDiffusion, "predict", lambda *given: passes.append(torch.is_grad_enabled()) or predict(*given))
    overrides = {"evaluate.noun": "dog", **{f"{method}.{key}": value for key, value in rule.items()}}
    outcome = baseline.run(new, method, silent, overrides=overrides)
    assert outcome.steps < 12 and outcome.ended_early
    drawn = len(passes) - 3 * outcome.steps  # for the class pictures, before the first step
    assert passes[drawn:] == [True, True, False] * outcome.steps and not any(passes[:drawn])


def test_every_process_ends_at_the_same_step_with_the_bits_of_one(watched, ratio, new, make_workspace, tmp_path):
    from tests.several import run_together

    arguments = [f"--set={key}={value}" for key, value in {**RULE, "invert.stop_ratio": ratio}.items()]
    ended = run_together(2, tmp_path / "several", "invert", "-C", str(new.root), *arguments)
    assert ended.codes == [0, 0], ended
    one = make_workspace("one")
    train(one, invert__stop_ratio=ratio, invert__accumulation=2)
    assert left_by(one, "invert").step < STEPS
    assert_left_the_same(left_by(new, "invert"), left_by(one, "invert"))
    assert_same_bits(left_by(new, "invert").state, left_by(one, "invert").state)

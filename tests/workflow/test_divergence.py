"""A training whose loss or result is no number any more: it ends, and nothing of it is saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cictl.engine.runtime import Runtime
from cictl.errors import CictlError
from cictl.events import StepCompleted
from cictl.methods import contrastive_inversion
from cictl.records import SNAPSHOTS, latest_checkpoint, step_folder
from cictl.workflow import invert
from cictl.workflow.divergence import Divergence
from tests.support import Recorder, silent


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_the_last_checkpoint_is_of_before(make_workspace, monkeypatch, wrong):
    workspace, calls = make_workspace(), []

    def loss(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(arguments)
        return plain(*arguments) * (wrong if len(calls) == 6 else 1)

    plain = contrastive_inversion.contrastive_loss
    monkeypatch.setattr(contrastive_inversion, "contrastive_loss", loss)
    recorder = Recorder()
    with pytest.raises(CictlError, match="loss of step 6 is no number") as caught:
        invert.run(
            workspace, recorder, overrides={"invert.steps": 12, "checkpoint.interval": 4, "tracking.interval": 3}, restart=True
        )
    assert (caught.value.exit_code, caught.value.slug) == (1, "loss-not-finite")
    assert "cictl invert --restart --set invert.learning_rate=" in caught.value.hint and "model.dtype" not in caught.value.hint
    checkpoint, _ = latest_checkpoint(workspace.stage_folder("invert"))
    assert checkpoint is not None and checkpoint.step == 4
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == [1, 2, 3, 4, 5, 6]


def test_steps_that_are_skipped_do_no_harm_until_there_are_too_many_in_a_row():
    def step(number: int, loss: float) -> StepCompleted:
        return StepCompleted(number, {"diffusion": 0.1, "contrastive": loss})

    fp16 = SimpleNamespace(skips=True, dtype_name="fp16")
    tell = Divergence("invert", 5e-4, fp16).watching(silent)
    for loss in (float("nan"), 1.0):
        for number in range(20):
            tell(step(number, loss))
    for number in range(20):
        tell(step(number, float("nan")))
    with pytest.raises(CictlError) as caught:
        tell(step(21, float("nan")))
    assert "--set invert.learning_rate=5e-05" in caught.value.hint and "--set model.dtype=fp32" in caught.value.hint


@pytest.mark.parametrize(("step_of", "interval", "snapshots", "last"), [(12, 4, 0, 8), (8, 4, 0, 4), (8, 12, 2, 0)])
def test_an_update_to_no_numbers_is_not_saved(make_workspace, monkeypatch, step_of, interval, snapshots, last):
    workspace, calls = make_workspace(), []

    def step(runtime: Runtime, optimizer: torch.optim.Optimizer, *arguments: float | None) -> None:
        plain(runtime, optimizer, *arguments)
        calls.append(optimizer)
        if len(calls) == step_of:  # after a loss that is a number
            optimizer.param_groups[0]["params"][-1].data[..., -1] = float("nan")

    plain = Runtime.step
    monkeypatch.setattr(Runtime, "step", step)
    overrides = {"invert.steps": 12, "checkpoint.interval": interval, "checkpoint.snapshots": snapshots}
    expected = f"loss of step {step_of + 1} " if snapshots else f"result of step {step_of} "
    with pytest.raises(CictlError, match=f"{expected}is no number") as caught:
        invert.run(workspace, silent, overrides=overrides, restart=True)
    assert (caught.value.exit_code, caught.value.slug) == (1, "loss-not-finite")
    checkpoint, _ = latest_checkpoint(workspace.stage_folder("invert"))
    assert checkpoint is not None and checkpoint.step == last
    kept = {path.name for path in (workspace.stage_folder("invert") / SNAPSHOTS).glob("*")}
    assert kept == ({step_folder(4)} if snapshots else set())

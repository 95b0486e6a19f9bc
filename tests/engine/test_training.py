"""The loop: what it reports, when it saves, and that stopping after any step changes no bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import pytest
import torch

from cictl.config import FinetuneConfig, InvertConfig
from cictl.data.draws import draw_batch
from cictl.engine import training
from cictl.engine.checkpoint import restore_training_state, training_state
from cictl.engine.runtime import Runtime, StopRequest
from cictl.engine.training import Schedule, adamw, fit
from cictl.events import Progress, StepCompleted
from cictl.methods.contrastive_inversion import ContrastiveInversion
from cictl.methods.disentangled_finetuning import DisentangledFinetuning
from cictl.models.clip import text_projection
from cictl.models.concept_tokens import initial_tokens
from cictl.models.stable_diffusion import StableDiffusion
from tests.pretended_graph import pretended_graphs
from tests.support import Recorder, assert_same_bits, encoded

STEPS = 24
PHOTOGRAPHS = encoded(side=8)
CPU = torch.device("cpu")


def parts_of(stage: str, step: int, accumulation: int = 1, batch_size: int = 2):
    size = batch_size // accumulation
    one = partial(draw_batch, PHOTOGRAPHS, seed=0, stage=stage, step=step, batch_size=batch_size, timesteps=1000)
    return [one(samples=range(start, start + size)) for start in range(0, batch_size, size)]


@dataclass
class Run:
    """A method built once; each call of ``go`` starts at a step from given tensors and says what came out."""

    method: ContrastiveInversion | DisentangledFinetuning
    stage: str
    rate: float
    start: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.start = {f"parameter.{name}": p.detach().clone() for name, p in self.method.trainable().items()}

    def go(
        self,
        first,
        last,
        state=None,
        *,
        accumulation=1,
        stop_after=None,
        report_every=5,
        save_every=10_000,
        clip=None,
        graphs=False,
    ):
        optimizer = adamw(self.method, learning_rate=self.rate, weight_decay=0.01)
        start = {name: tensor.clone() for name, tensor in (state or self.start).items()}
        restore_training_state(start, self.method.trainable(), optimizer)
        saved: dict[int, dict[str, torch.Tensor]] = {}
        stop, recorder = StopRequest(), Recorder()

        def draw(step: int):
            if step + 1 == stop_after:
                stop.signal_number = 2
            return parts_of(self.stage, step, accumulation)

        def save(step: int) -> None:
            saved[step] = {name: tensor.clone() for name, tensor in training_state(self.method.trainable(), optimizer).items()}

        done = fit(
            self.method, optimizer, draw, Schedule(first, last, report_every, save_every),
            Runtime(CPU, torch.float32, graphs=graphs), recorder, checkpoint=save, after_step=lambda step: None, stop=stop,
            gradient_clip=clip,
        )  # fmt: skip
        losses = [(event.step, event.losses) for event in recorder.events if isinstance(event, StepCompleted)]
        return done, saved[done] if save_every > 1 else saved, losses


@pytest.fixture(scope="module", params=["invert", "finetune"])
def run(request, located, clip) -> Run:
    model = StableDiffusion.load(located, CPU, torch.float32)
    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name="my-teapot", vectors=2, start="auto", keys=PHOTOGRAPHS.keys,
        auxiliary_vectors=2, auxiliary_start="auto", seed=0,
    )  # fmt: skip
    model.add_tokens(tokens)
    if request.param == "invert":
        return Run(ContrastiveInversion(model, tokens, PHOTOGRAPHS, text_projection(clip), InvertConfig()), "invert", 0.01)
    return Run(DisentangledFinetuning(model, tokens, PHOTOGRAPHS, FinetuneConfig()), "finetune", 0.001)


@pytest.fixture(scope="module")
def uninterrupted(run: Run):
    """The state after every step, and the losses, of a run that nothing stopped."""
    _, states, losses = run.go(0, STEPS, save_every=1)
    assert list(states) == list(range(1, STEPS + 1))
    return states, losses


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_run_stopped_after_any_step_goes_on_with_the_same_bits_and_losses(run: Run, uninterrupted, step: int):
    """Three steps further all tensors must be equal; those after them are a function of these."""
    states, losses = uninterrupted
    end = min(step + 3, STEPS)
    done, state, rest = run.go(step, end, states[step])
    assert done == end
    assert_same_bits(state, states[end])
    assert rest == losses[step:end]


@pytest.mark.parametrize("step", [1, 11, 20])
def test_a_run_stopped_by_a_request_ends_with_the_same_bits_and_losses(run: Run, uninterrupted, step: int):
    states, losses = uninterrupted
    done, state, first = run.go(0, STEPS, stop_after=step)
    assert done == step
    done, end, rest = run.go(step, STEPS, state)
    assert done == STEPS
    assert_same_bits(end, states[STEPS])
    assert first + rest == losses


def test_clipped_gradients_are_those_of_a_plain_loop(run: Run):
    limit = 1e-3
    _, state, _ = run.go(0, 3, clip=limit)
    optimizer = adamw(run.method, learning_rate=run.rate, weight_decay=0.01)
    restore_training_state(run.start, run.method.trainable(), optimizer)
    parameters = list(run.method.trainable().values())
    for step in range(3):
        optimizer.zero_grad()
        run.method.loss(parts_of(run.stage, step)[0]).total.backward()
        norm = sum(float((parameter.grad**2).sum()) for parameter in parameters) ** 0.5
        assert norm > limit
        for parameter in parameters:
            parameter.grad *= limit / norm
        optimizer.step()
    optimizer.zero_grad()
    for name, parameter in run.method.trainable().items():
        torch.testing.assert_close(state[f"exp_avg.{name}"], optimizer.state[parameter]["exp_avg"], rtol=1e-3, atol=1e-9)


def test_a_limit_that_no_gradient_reaches_changes_no_bit(run: Run):
    assert_same_bits(run.go(0, 3, clip=1e9)[1], run.go(0, 3)[1])


@pytest.mark.parametrize(("parts", "limit"), [(1, None), (2, None), (1, 1e-4)])
def test_steps_that_are_recorded_and_replayed_change_no_bit(run: Run, monkeypatch, parts, limit):
    how = {"accumulation": parts, "clip": limit}
    # As on a GPU: how many prompts are different is not asked.
    monkeypatch.setattr(StableDiffusion, "encode_rows", lambda self, ids, rows: self.encode_text(ids[rows]))
    expected = run.go(0, 6, **how)
    with pretended_graphs(monkeypatch) as graphs:
        found = run.go(0, 6, **how, graphs=True)
        _, half, _ = run.go(0, 3, **how, graphs=True)
        resumed = run.go(3, 6, half, **how, graphs=True)
    assert [graph.replays for graph in graphs] == [6 * parts - 1, 3 * parts - 1, 3 * parts - 1]
    for one in (found, resumed):
        assert_same_bits(one[1], expected[1])
    assert found[2] == expected[2] and resumed[2] == expected[2][3:]


def test_training_changes_the_parameters(run: Run, uninterrupted):
    end = uninterrupted[0][STEPS]
    for name, before in run.start.items():
        assert not torch.equal(end[name], before), name


def test_two_parts_of_a_batch_train_like_the_whole_within_rounding(run: Run, uninterrupted):
    _, end, losses = run.go(0, 12, accumulation=2)
    for name, tensor in uninterrupted[0][12].items():
        if name.startswith("parameter."):
            moved = (tensor - run.start[name]).norm()
            assert (end[name] - tensor).norm() < 0.02 * moved, name
    for (_, one), (_, two) in zip(losses, uninterrupted[1][:12], strict=True):
        assert one == pytest.approx(two, rel=1e-3)


def test_the_gradient_of_two_parts_is_that_of_the_whole_batch(run: Run):
    gradients = []
    for accumulation in (1, 2):
        for parameter in run.method.trainable().values():
            parameter.grad = None
        parts = parts_of(run.stage, 0, accumulation)
        for part in parts:
            (run.method.loss(part).total / len(parts)).backward()
        gradients.append({name: p.grad.clone() for name, p in run.method.trainable().items()})
        for parameter in run.method.trainable().values():
            parameter.grad = None
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, rtol=1e-3, atol=1e-6)


def test_stopping_and_going_on_with_two_parts_also_changes_no_bit(run: Run):
    _, expected, losses = run.go(0, 9, accumulation=2)
    _, state, first = run.go(0, 9, accumulation=2, stop_after=4)
    _, end, rest = run.go(4, 9, state, accumulation=2)
    assert_same_bits(end, expected)
    assert first + rest == losses


def test_how_often_losses_are_read_changes_neither_them_nor_the_result(run: Run):
    _, one, losses = run.go(0, 7, report_every=1)
    _, other, same = run.go(0, 7, report_every=100)
    assert_same_bits(one, other)
    assert losses == same
    assert [step for step, _ in losses] == list(range(1, 8))


# -- the schedule, on a method of one number --------------------------------------------------------


@dataclass(frozen=True)
class PlainLoss:
    total: torch.Tensor
    terms: dict[str, torch.Tensor]


class Number:
    """Goes down (x - 3)^2."""

    def __init__(self) -> None:
        self.x = torch.nn.Parameter(torch.zeros(1))

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        return {"x": self.x}

    def loss(self, batch: float) -> PlainLoss:
        value = ((self.x - batch) ** 2).sum()
        return PlainLoss(value, {"value": value.detach()})


def go(schedule: Schedule, *, stop: StopRequest | None = None, parts=(3.0,), method=None, **hooks):
    method, recorder, saved, after = method or Number(), Recorder(), [], []
    optimizer = torch.optim.SGD(list(method.trainable().values()), lr=0.1)
    done = fit(
        method, optimizer, lambda step: parts, schedule, Runtime.create("cpu"), recorder, checkpoint=saved.append,
        after_step=after.append, stop=stop or StopRequest(), **hooks,
    )  # fmt: skip
    return done, saved, after, recorder, method


def test_checkpoints_come_at_their_intervals_and_at_the_end():
    done, saved, after, _, _ = go(Schedule(0, 10, 3, 4))
    assert (done, saved, after) == (10, [4, 8, 10], list(range(1, 11)))


def test_intervals_count_from_the_first_step_of_all_when_a_run_goes_on():
    _, saved, after, _, _ = go(Schedule(6, 11, 3, 4))
    assert (saved, after) == ([8, 11], [7, 8, 9, 10, 11])


def test_a_stop_request_ends_after_the_step_in_hand_with_a_checkpoint():
    stop = StopRequest()
    stop.signal_number = 15
    done, saved, _, recorder, _ = go(Schedule(3, 100, 50, 50), stop=stop)
    assert (done, saved) == (4, [4])
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == [4]


def test_every_step_is_reported_once_before_the_checkpoint_that_holds_it():
    _, _, _, recorder, _ = go(Schedule(0, 10, 4, 3))
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == list(range(1, 11))
    assert [event.step for event in recorder.events if isinstance(event, Progress)] == [3, 4, 6, 8, 9, 10]


def test_the_losses_reported_are_those_of_each_step_averaged_over_its_parts():
    _, _, _, recorder, method = go(Schedule(0, 3, 10, 10), parts=(2.0, 4.0))
    x, expected = 0.0, []
    for _ in range(3):
        expected.append(((x - 2) ** 2 + (x - 4) ** 2) / 2)
        x -= 0.1 * (2 * (x - 2) + 2 * (x - 4)) / 2
    assert [event.losses["value"] for event in recorder.events if isinstance(event, StepCompleted)] == pytest.approx(expected)
    assert float(method.x.detach()) == pytest.approx(x)


def test_progress_has_the_losses_of_its_step_and_the_seconds_of_a_step_without_checkpoints(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(training.time, "perf_counter", lambda: clock[0])
    method, recorder = Number(), Recorder()

    def passes(seconds: float) -> None:
        clock[0] += seconds

    def draw(step: int) -> list[float]:
        passes(2.0)
        return [3.0]

    fit(
        method, torch.optim.SGD([method.x], lr=0.1), draw, Schedule(0, 9, 2, 3), Runtime.create("cpu"), recorder,
        checkpoint=lambda done: passes(100.0), after_step=lambda done: passes(10.0 * (done in (3, 4))), stop=StopRequest(),
    )  # fmt: skip
    losses = {event.step: event.losses for event in recorder.events if isinstance(event, StepCompleted)}
    progress = [event for event in recorder.events if isinstance(event, Progress)]
    assert len(progress) > 4
    assert all(event.losses == losses[event.step] and event.steps == 9 for event in progress)
    assert [event.seconds_per_step for event in progress] == [2.0] * len(progress)


def test_what_has_a_rate_of_its_own_is_trained_with_it_and_all_decays():
    class Two(Number):
        def trainable(self) -> dict[str, torch.nn.Parameter]:
            return {"x": self.x, "y": self.y}

    method = Two()
    method.y = torch.nn.Parameter(torch.ones(1))
    optimizer = adamw(method, learning_rate=0.5, weight_decay=0.125, rates={"y": 0.25})
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates == {id(method.x): 0.5, id(method.y): 0.25}
    assert all(group["weight_decay"] == 0.125 for group in optimizer.param_groups)
    assert len(adamw(method, learning_rate=0.5, weight_decay=0.0).param_groups) == 1


def test_nothing_is_done_when_all_steps_are_done():
    assert go(Schedule(5, 5, 1, 1))[:2] == (5, [])


def test_a_method_that_has_converged_is_trained_no_further_and_has_a_checkpoint():
    asked: list[int] = []

    def converged(done: int) -> bool:
        asked.append(done)
        return done == 7

    done, saved, _, recorder, _ = go(Schedule(3, 100, 50, 50), converged=converged)
    assert (done, saved, asked) == (7, [7], [4, 5, 6, 7])
    assert [event.step for event in recorder.events if isinstance(event, StepCompleted)] == [4, 5, 6, 7]


def test_whether_it_has_converged_is_asked_after_the_last_step_and_after_one_that_a_signal_stops_at():
    """Else a run that goes on would lack what the uninterrupted one has looked at."""
    asked: list[int] = []
    go(Schedule(0, 2, 50, 50), converged=lambda done: bool(asked.append(done)))
    stop = StopRequest()
    stop.signal_number = 15
    go(Schedule(2, 9, 50, 50), stop=stop, converged=lambda done: bool(asked.append(done)))
    assert asked == [1, 2, 3]

"""All randomness is a function of (seed, stage, step, sample)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cictl.data.draws import Batch, _send, draw_batch, evaluation_batch, randomness, stratified_timesteps
from tests.support import encoded


def draw(photographs, *, step=0, samples=range(4), batch_size=4, seed=0, stage="invert", timesteps=1000, **spread) -> Batch:
    return draw_batch(
        photographs, seed=seed, stage=stage, step=step, samples=samples, batch_size=batch_size, timesteps=timesteps, **spread
    )


def assert_equal(one: Batch, other: Batch) -> None:
    for field in dataclasses.fields(Batch):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, field.name


def joined(parts: list[Batch]) -> Batch:
    return Batch.of([torch.cat(one) for one in zip(*(part.tensors() for part in parts), strict=True)])


@pytest.mark.parametrize("spread", ["uniform", "stratified"])
@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 17])
def test_a_batch_is_the_same_however_it_is_split_into_parts(part: int, step: int, spread: str):
    photographs = encoded(5)
    whole = draw(photographs, step=step, samples=range(6), batch_size=6, spread=spread)
    parts = [draw(photographs, step=step, samples=range(at, at + part), batch_size=6, spread=spread) for at in range(0, 6, part)]
    assert_equal(joined(parts), whole)


@pytest.mark.parametrize("spread", ["uniform", "stratified"])
def test_a_sample_does_not_depend_on_what_was_drawn_before_or_on_torchs_global_state(spread: str):
    photographs = encoded()
    torch.manual_seed(1)
    before = draw(photographs, step=7, spread=spread)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    draw(photographs, step=3, spread=spread)
    assert_equal(draw(photographs, step=7, spread=spread), before)
    torch.manual_seed(1)
    draw(photographs, step=3, spread=spread)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("count", "batch_size"), [(3, 4), (5, 2), (6, 1), (4, 4), (2, 7)])
def test_every_photograph_is_seen_once_before_any_is_seen_again(count: int, batch_size: int):
    photographs = encoded(count, side=2)
    seen = [
        index for step in range(3 * count) for index in
        draw(photographs, step=step, samples=range(batch_size), batch_size=batch_size).photographs
    ]  # fmt: skip
    for start in range(0, len(seen) - count + 1, count):
        assert sorted(seen[start : start + count]) == list(range(count))


def test_the_order_of_the_photographs_changes_from_epoch_to_epoch():
    photographs = encoded(6, side=2)
    orders = {tuple(draw(photographs, step=step, samples=range(6), batch_size=6).photographs) for step in range(10)}
    assert len(orders) > 5


@pytest.mark.parametrize("other", [{"seed": 1}, {"stage": "finetune"}])
def test_the_order_of_the_photographs_depends_on_seed_and_stage(other):
    photographs = encoded(6, side=2)
    one, two = (
        [draw(photographs, step=step, samples=range(6), batch_size=6, **how).photographs.tolist() for step in range(5)]
        for how in ({}, other)
    )
    assert all(order != another for order, another in zip(one, two, strict=True))


@pytest.mark.parametrize("other", [{"seed": 1}, {"stage": "finetune"}, {"step": 1}])
def test_other_seeds_stages_and_steps_draw_other_numbers(other):
    photographs = encoded()
    one, two = draw(photographs), draw(photographs, **other)
    assert not torch.equal(one.noise, two.noise)
    assert not torch.equal(one.choices, two.choices)
    assert one.timesteps.tolist() != two.timesteps.tolist()


def test_samples_of_a_batch_differ_in_noise_and_posterior_sample():
    photographs = encoded(1)
    batch = draw(photographs)
    posterior = (batch.latents - photographs.mean) / photographs.std
    rows = [*batch.noise.flatten(1), *posterior.flatten(1)]
    for i, one in enumerate(rows):
        for two in rows[:i]:
            assert (one - two).abs().mean() > 0.5


def test_latents_are_drawn_from_the_posterior_of_their_own_photograph():
    photographs = encoded(3)
    small = dataclasses.replace(photographs, std=torch.zeros_like(photographs.std))
    batch = draw(small)
    assert torch.equal(batch.latents, photographs.mean[batch.photographs])
    posterior = (draw(photographs).latents - photographs.mean[batch.photographs]) / photographs.std[batch.photographs]
    assert posterior.mean().abs() < 0.1
    assert abs(posterior.std() - 1) < 0.1


def test_timesteps_cover_the_schedule_and_nothing_else():
    photographs = encoded(2, side=1)
    times = torch.cat([draw(photographs, step=step, timesteps=5).timesteps for step in range(60)])
    assert sorted(set(times.tolist())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("batch_size", "timesteps"), [(4, 1000), (3, 10), (1, 7), (8, 5)])
def test_stratified_timesteps_are_one_in_each_part_of_the_schedule(batch_size: int, timesteps: int):
    photographs = encoded(2, side=1)
    for step in range(20):
        batch = draw(
            photographs, step=step, samples=range(batch_size), batch_size=batch_size, timesteps=timesteps, spread="stratified"
        )
        for part, time in enumerate(sorted(batch.timesteps.tolist())):
            assert part * timesteps // batch_size <= time <= (part + 1) * timesteps / batch_size


@pytest.mark.parametrize(("batch_size", "timesteps"), [(4, 10), (3, 10), (8, 5)])
def test_each_sample_of_a_stratified_batch_is_uniform_over_the_schedule(batch_size: int, timesteps: int):
    """The mean count of a timestep among n draws is n / T; five standard deviations are allowed."""
    draws = 4000
    times = torch.stack(
        [stratified_timesteps(batch_size, timesteps, randomness(0, "test", number)) for number in range(draws)]
    )  # fmt: skip
    expected = draws / timesteps
    for sample in times.T:
        counts = torch.bincount(sample, minlength=timesteps)
        assert len(counts) == timesteps
        assert (counts - expected).abs().max() < 5 * expected**0.5


def test_each_part_of_the_schedule_has_an_offset_of_its_own():
    times = stratified_timesteps(4, 1000, randomness(0, "test")).sort().values
    assert len(set(times.diff().tolist())) == 3


def test_samples_of_a_stratified_batch_are_free_of_their_place_in_it():
    """Over steps, the first sample meets every part of the schedule, and not in the same order as the second."""
    times = torch.stack([draw(encoded(2, side=1), step=step, spread="stratified").timesteps for step in range(40)])
    parts = times * 4 // 1000
    assert all(set(column.tolist()) == {0, 1, 2, 3} for column in parts.T)


def test_stratifying_changes_the_timesteps_and_nothing_else():
    photographs = encoded()
    uniform, stratified = draw(photographs), draw(photographs, spread="stratified")
    assert not torch.equal(uniform.timesteps, stratified.timesteps)
    assert_equal(dataclasses.replace(stratified, timesteps=uniform.timesteps), uniform)


def test_choices_are_spread_over_zero_to_one():
    photographs = encoded(2, side=1)
    choices = [choice for step in range(60) for choice in draw(photographs, step=step).choices]
    assert all(0 <= choice < 1 for choice in choices)
    assert {int(choice * 4) for choice in choices} == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 27])
def test_every_prompt_has_the_same_share_of_the_choices(count: int):
    """Each has the choices of a stretch of [0, 1), the last one up to the largest number below 1."""
    grid = (torch.arange(count * 8) + 0.5) / (count * 8)
    batch = dataclasses.replace(draw(encoded(2, side=1)), choices=torch.cat([grid, torch.tensor([0.0, 1 - 2**-24])]))
    assert batch.chosen(count).tolist() == [*(place // 8 for place in range(count * 8)), 0, count - 1]


@pytest.mark.parametrize("with_class", [False, True])
def test_a_batch_is_read_back_from_its_tensors(with_class: bool):
    photographs = encoded(3)
    batch = dataclasses.replace(draw(photographs), class_pictures=draw(photographs, step=1) if with_class else None)
    again = Batch.of(batch.tensors())
    assert (again.class_pictures is not None) == with_class
    for one, other in ((batch, again), *([(batch.class_pictures, again.class_pictures)] if with_class else [])):
        assert_equal(*(dataclasses.replace(each, class_pictures=None) for each in (one, other)))


def test_names_of_randomness_are_not_run_together():
    numbers = {float(torch.rand((), generator=randomness(*names))) for names in [(0, "a", 1, 2), (0, "a", 12), (0, "a1", 2)]}
    assert len(numbers) == 3


def test_a_view_of_a_photograph_is_drawn_last_so_that_nothing_else_changes_with_it():
    plain = encoded(3)
    views = dataclasses.replace(plain, mean=plain.mean.repeat_interleave(5, 0), std=plain.std.repeat_interleave(5, 0), views=5)
    one, many = draw(plain), draw(views)
    assert torch.equal(one.rows, one.photographs)
    for name in ("photographs", "noise", "timesteps", "latents"):
        assert torch.equal(getattr(one, name), getattr(many, name))


def test_every_view_of_a_photograph_is_drawn_and_no_other_photographs():
    photographs = encoded(2)
    shifts = torch.arange(6.0).view(6, 1, 1, 1)
    mean = shifts.expand(6, *photographs.mean.shape[1:])
    views = dataclasses.replace(photographs, mean=mean, std=torch.zeros_like(mean), views=3)
    batches = [draw(views, step=step) for step in range(20)]
    assert {row for batch in batches for row in batch.rows.tolist()} == set(range(6))
    for batch in batches:
        assert torch.equal(batch.rows // 3, batch.photographs)
        assert torch.equal(batch.latents[:, 0, 0, 0], batch.rows.float())


# -- what a training is judged by -------------------------------------------------------------------


def evaluation(photographs, *, samples=range(8), count=8, seed=0, timesteps=1000) -> Batch:
    return evaluation_batch(photographs, seed=seed, stage="invert", samples=samples, count=count, timesteps=timesteps)


def test_the_batch_that_a_training_is_judged_by_is_always_the_same_however_it_is_split():
    photographs = encoded(5)
    whole = evaluation(photographs)
    assert_equal(evaluation(photographs), whole)
    assert_equal(joined([evaluation(photographs, samples=range(at, at + 2)) for at in range(0, 8, 2)]), whole)
    assert not torch.equal(evaluation(photographs, seed=1).noise, whole.noise)
    assert not torch.equal(draw(photographs, samples=range(8), batch_size=8).noise, whole.noise)


@pytest.mark.parametrize(("count", "timesteps"), [(8, 1000), (3, 1000), (8, 24), (5, 7)])
def test_it_has_a_timestep_in_each_of_as_many_equal_stretches_of_the_schedule(count: int, timesteps: int):
    for seed in range(20):
        batch = evaluation(encoded(3, side=2), samples=range(count), count=count, seed=seed, timesteps=timesteps)
        for place, timestep in enumerate(batch.timesteps.tolist()):
            assert place * timesteps // count <= timestep < -(-(place + 1) * timesteps // count)


def test_it_has_each_photograph():
    assert set(evaluation(encoded(5)).photographs.tolist()) == set(range(5))


class Sent(TorchFunctionMode):
    """Notes how tensors are sent to a device, and leaves them where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.how: list[tuple[bool, bool]] = []

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        if function is torch.Tensor.pin_memory:
            arguments[0].pinned = True
            return arguments[0]
        if function is torch.Tensor.to:
            self.how.append((getattr(arguments[0], "pinned", False), options["non_blocking"]))
            return arguments[0]
        return function(*arguments, **options)


@pytest.mark.parametrize(("device", "pinned", "waits"), [("cuda", True, False), ("mps", False, True)])
def test_nothing_is_let_go_of_that_a_gpu_still_reads(device, pinned, waits):
    """Apple's GPU reads memory that is let go of at once; CUDA's what is pinned, which torch keeps until it has."""
    with Sent() as sent:
        _send([torch.ones(1), torch.ones(1)], torch.device(device))
    assert sent.how == [(pinned, not waits)]

"""Work that is recorded and replayed, with graphs that are pretended on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from cictl.engine.recorded import Recorded
from cictl.errors import UsageError
from tests.pretended_graph import Stream, pretended_graphs


@pytest.fixture
def graphs(monkeypatch):
    with pretended_graphs(monkeypatch) as made:
        yield made


def test_new_inputs_are_read_and_what_is_changed_in_place_is_changed_once_a_call(graphs):
    total = torch.zeros(2)

    def add(x: Tensor, *, times: int) -> dict[str, Tensor]:
        total.add_(x * times)
        return {"total": total.clone(), "square": x * x}

    recorded = Recorded(add, record=True)
    for call, value in enumerate((1.0, 2.0, 3.0, 4.0), 1):
        found = recorded(torch.full((2,), value), times=2)
        assert found["square"].tolist() == [value**2] * 2
        assert found["total"].tolist() == total.tolist() == [float(call * (call + 1))] * 2
    assert [graph.replays for graph in graphs] == [3]


def test_what_was_returned_stays_when_the_next_call_comes(graphs):
    recorded = Recorded(lambda x: {"twice": 2 * x}, record=True)
    found = [recorded(torch.tensor([float(value)]))["twice"] for value in range(4)]
    assert torch.cat(found).tolist() == [0.0, 2.0, 4.0, 6.0]


def test_what_is_forgotten_is_recorded_anew(graphs):
    recorded = Recorded(lambda x: {"twice": 2 * x}, record=True)
    found = []
    for value in range(6):
        if value == 3:
            recorded.forget()
        found.append(float(recorded(torch.tensor([float(value)]))["twice"]))
    assert found == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [graph.replays for graph in graphs] == [2, 2]


def test_other_shapes_and_other_fixed_arguments_have_recordings_of_their_own(graphs):
    recorded = Recorded(lambda x, *, times: {"times": x * times}, record=True)
    for _ in range(3):
        for size, times in ((1, 2), (2, 2), (1, 3)):
            assert recorded(torch.ones(size), times=times)["times"].tolist() == [float(times)] * size
    assert [graph.replays for graph in graphs] == [2, 2, 2]


def test_without_recording_every_call_runs_as_it_is(graphs):
    calls: list[Tensor] = []
    recorded = Recorded(lambda x: calls.append(x) or {"same": x}, record=False)
    for _ in range(3):
        recorded(torch.ones(1))
    assert len(calls) == 3 and not graphs


def test_reading_from_the_gpu_while_it_records_would_be_noticed(graphs):
    recorded = Recorded(lambda x: {"number": x * float(x.sum())}, record=True)
    recorded(torch.ones(1))
    with pytest.raises(UsageError, match="cannot record its work as a CUDA graph: operation not permitted"):
        recorded(torch.ones(1))


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_memory_that_runs_out_while_it_records_is_no_graph_that_cannot_be(graphs, kind):
    """The driver says it in words of its own, where torch has no part in it."""
    full: list[bool] = []

    def work(x: Tensor) -> dict[str, Tensor]:
        if full:
            raise kind("CUDA error: out of memory")
        return {"same": x}

    recorded = Recorded(work, record=True)
    recorded(torch.ones(1))
    full.append(True)
    with pytest.raises(kind):
        recorded(torch.ones(1))


def test_each_device_records_on_a_stream_of_its_own_and_all_that_it_records_on_the_same(graphs, monkeypatch):
    made: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or Stream(device))
    for device in ("cpu", "meta", "cpu", "meta"):  # in place of two GPUs
        recorded = Recorded(lambda x: {"twice": 2 * x}, record=True)
        for _ in range(3):
            recorded(torch.ones(1, device=device))
    assert [str(graph.stream.device) for graph in graphs] == ["cpu", "meta", "cpu", "meta"]
    assert [str(device) for device in made] == ["cpu", "meta"]


def test_a_recording_that_fails_leaves_the_current_stream_what_it_was(graphs, monkeypatch):
    current = ["default"]

    class Fails:
        """As torch's: its end raises before it puts the stream back."""

        def __init__(self, graph: object, stream: Stream) -> None:
            pass

        def __enter__(self) -> None:
            current[0] = "own"

        def __exit__(self, *error: object) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    recorded = Recorded(lambda x: {"same": x}, record=True)
    recorded(torch.ones(1))
    monkeypatch.setattr(torch.cuda, "graph", Fails)
    monkeypatch.setattr(torch.cuda, "stream", lambda own: restoring(current))
    with pytest.raises(UsageError, match="previous error during capture"):
        recorded(torch.ones(1))
    assert current == ["default"]


@contextmanager
def restoring(current: list[str]) -> Iterator[None]:
    before = list(current)
    try:
        yield
    finally:
        current[:] = before

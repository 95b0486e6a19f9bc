"""A step never waits for the device: nothing is read from it, and nothing is sent to it that it would have to wait for.

The device is torch's "meta", which computes shapes alone: whatever reads a number from it raises.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cictl.data.draws import EncodedPhotographs, draw_batch
from cictl.engine import training
from cictl.engine.runtime import Runtime, StopRequest
from cictl.engine.training import Schedule, adamw, fit
from cictl.events import ignore
from cictl.methods.dreambooth import DreamBooth
from tests.methods.support import METHODS, PHOTOGRAPHS, make

META = torch.device("meta")


class Sent(TorchFunctionMode):
    """Notes what is sent from the CPU to the device in the way that waits for the device: numbers, and lists as an index."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        result = function(*arguments, **options)
        given = arguments[0] if arguments else None
        if function is torch.Tensor.__getitem__ and given.device == META:
            index = arguments[1] if isinstance(arguments[1], tuple) else (arguments[1],)
            waits = any(isinstance(at, list) or (isinstance(at, torch.Tensor) and at.device != META) for at in index)
        elif isinstance(given, torch.Tensor):
            crosses = isinstance(result, torch.Tensor) and given.device != result.device
            waits = crosses and not options.get("non_blocking")
        else:
            waits = function in (torch.tensor, torch.as_tensor) and result.device == META
        if waits:
            self.waiting.append(function.__name__)
        return result


def move(method: Any) -> None:
    """Put a method that was made on the CPU on the meta device, as if it had been made there."""
    model = method.model
    for part in (model.unet, model.text_encoder):
        part.to(META)
    model.alphas_cumprod, model.device = model.alphas_cumprod.to(META), META
    for name, value in vars(method).items():
        if isinstance(value, torch.Tensor | torch.nn.Module):
            setattr(method, name, value.to(META))
    if isinstance(method, DreamBooth):
        method.unet.weights = dict(model.unet.named_parameters())
    if hasattr(method, "photographs"):
        method.photographs = on_meta()


def on_meta() -> EncodedPhotographs:
    return EncodedPhotographs(PHOTOGRAPHS.keys, *(getattr(PHOTOGRAPHS, name).to(META) for name in ("mean", "std", "embeddings")))


@pytest.mark.parametrize("name", METHODS)
def test_between_reports_no_step_reads_from_the_device_or_waits_to_send(name, model, clip, monkeypatch):
    method = make(name, model, clip)
    move(method)
    photographs, reported, sent = on_meta(), [], Sent()
    one = partial(draw_batch, photographs, seed=0, stage=name, batch_size=2, timesteps=1000, spread="stratified")
    monkeypatch.setattr(training, "_report", lambda pending, done, *rest: reported.append((done, len(pending))) or {})
    optimizer = adamw(method, learning_rate=0.001, weight_decay=0.01)
    assert all(parameter.device == META for parameter in method.trainable().values())
    with sent:
        fit(
            method, optimizer, lambda step: [one(step=step, samples=range(2))], Schedule(0, 5, 3, 100), Runtime.create("cpu"),
            ignore, checkpoint=lambda step: None, after_step=lambda step: None, stop=StopRequest(), gradient_clip=1.0,
        )  # fmt: skip
    assert reported == [(3, 3), (5, 2)]
    assert sent.waiting == []


@pytest.mark.parametrize(
    "waiting",
    [lambda tensor: tensor.sum().item(), lambda tensor: tensor.tolist(), lambda tensor: bool(tensor.sum() > 0),
     lambda tensor: tensor[tensor > 0], lambda tensor: tensor.nonzero()],
)  # fmt: skip
def test_reading_from_the_device_would_be_noticed(waiting):
    with pytest.raises((RuntimeError, NotImplementedError)):
        waiting(torch.ones(3, device=META))


@pytest.mark.parametrize(
    ("send", "waits"),
    [(lambda: torch.ones(3, device=META)[[0, 1]], True), (lambda: torch.ones(3, device=META)[torch.tensor([0])], True),
     (lambda: torch.ones(3).to(META), True), (lambda: torch.tensor([1.0], device=META), True),
     (lambda: torch.ones(3).to(META, non_blocking=True), False), (lambda: torch.ones(3, device=META)[0], False)],
)  # fmt: skip
def test_sending_that_waits_would_be_noticed(send, waits):
    with Sent() as sent:
        send()
    assert bool(sent.waiting) == waits

"""What several tests need: settings, observers, and what a training left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from cictl.config import Config, commented_yaml
from cictl.config.yaml_file import parse_yaml
from cictl.data.draws import Batch, EncodedPhotographs, draw_batch, randomness
from cictl.events import Event, StageStarted, StepCompleted, ignore
from cictl.records import RESULT, STATE, latest_checkpoint
from cictl.workflow.event_log import read_losses
from cictl.workspace import Workspace

silent = ignore


def quick(base: Path) -> dict[str, Any]:
    """Settings under which a stage on the tiny base takes a second."""
    return {
        "model.clip": str(base / "clip"), "data.resolution": 64, "concept.vectors": 2,
        "invert.steps": 8, "invert.auxiliary_vectors": 2, "invert.learning_rate": 0.01,
        "finetune.steps": 6, "finetune.learning_rate": 0.001, "checkpoint.interval": 4,
        "generate.steps": 3, "generate.count": 2,
    }  # fmt: skip


def write_settings(workspace: Workspace, changes: Mapping[str, Any]) -> None:
    """Change dotted keys of the workspace's ci.yaml."""
    values = parse_yaml(workspace.config_file.read_text("utf-8")).values
    for key, value in changes.items():
        group, _, name = key.rpartition(".")
        (values[group] if group else values)[name] = value
    workspace.config_file.write_text(commented_yaml(Config.model_validate(values)), "utf-8")


@dataclass
class Recorder:
    """Remembers events; with ``stop_after`` it sends this process a signal so that it ends
    with that many steps done (where every step is reported)."""

    stop_after: int | None = None
    signal_number: int = signal.SIGINT
    events: list[Event] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        done = {StageStarted: "first_step", StepCompleted: "step"}.get(type(event))
        if done and self.stop_after and getattr(event, done) == self.stop_after - 1:  # so that the next step is the last
            os.kill(os.getpid(), self.signal_number)

    def texts(self, kind: type) -> list[str]:
        return [event.message for event in self.events if type(event) is kind]  # type: ignore[attr-defined]


@dataclass
class Left:
    """What a training left: its step, its result, what it goes on from, and the losses of its log."""

    step: int
    result: dict[str, Tensor]
    state: dict[str, Tensor]
    losses: list[tuple[int, dict[str, float]]]


def left_by(workspace: Workspace, stage: str) -> Left:
    checkpoint, _ = latest_checkpoint(workspace.stage_folder(stage))
    assert checkpoint is not None
    result, state = load_file(checkpoint.folder / RESULT), load_file(checkpoint.folder / STATE)
    names = [name.removeprefix("exp_avg.") for name in state if name.startswith("exp_avg.")]
    return Left(
        checkpoint.step,
        result,
        {**state, **{f"parameter.{name}": result[name] for name in names if f"parameter.{name}" not in state}},
        read_losses(workspace.logs / f"{stage}.jsonl"),
    )


def assert_same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


def assert_left_the_same(one: Left, other: Left) -> None:
    assert one.step == other.step
    assert_same_bits(one.result, other.result)
    assert_same_bits(one.state, other.state)
    assert one.losses == other.losses


def encoded(count: int = 3, channels: int = 4, side: int = 16, width: int = 32) -> EncodedPhotographs:
    """Photographs as training sees them, of random numbers."""
    generator = randomness(0, "encoded")
    return EncodedPhotographs(
        tuple(f"{index:064x}" for index in range(count)),
        torch.randn(count, channels, side, side, generator=generator),
        torch.rand(count, channels, side, side, generator=generator) + 0.1,
        torch.randn(count, width, generator=generator),
    )


def batch_of(
    photographs: EncodedPhotographs, step: int = 0, samples: range | None = None, batch_size: int = 4, seed: int = 0
) -> Batch:
    return draw_batch(
        photographs, seed=seed, stage="invert", step=step, samples=samples or range(batch_size), batch_size=batch_size,
        timesteps=1000,
    )  # fmt: skip

"""What a training begins with: decided by one process, before anything is loaded, and the same for all that train together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cictl.config import Config, Stage, Training, group_of, is_read_by, settings_of
from cictl.data.photographs import Photograph, find_photographs
from cictl.errors import UsageError
from cictl.events import Note, Observer, Warned
from cictl.processes import Processes
from cictl.records import remove_staging, set_aside_damaged
from cictl.workflow.pins import Pins, read_pins
from cictl.workflow.stage import Decision, configure, decide, fingerprint, kept_overrides, lasting
from cictl.workflow.stopping import never_stops
from cictl.workflow.tracking import require_trackers
from cictl.workspace import Workspace


@dataclass(frozen=True)
class Beginning:
    """A training that is about to begin, or to go on.

    Attributes:
        config: of the run.
        photographs: that it trains on.
        overrides: what --set gave this run and those before it, by dotted key.
        decision: what is to be done.
        pins: the commits that the models stay with.
        replaces: whether another training of the stage is to give way to it.
    """

    workspace: Workspace
    stage: Stage
    config: Config
    photographs: list[Photograph]
    overrides: Mapping[str, Any]
    decision: Decision
    pins: Pins
    replaces: bool

    @property
    def settings(self) -> Training:
        """Of the stage."""
        return settings_of(self.config, self.stage)

    @property
    def first_step(self) -> int:
        """The steps that are done."""
        return self.decision.first_step


def begin(
    workspace: Workspace, stage: Stage, observe: Observer, processes: Processes, overrides: Mapping[str, Any], *, restart: bool
) -> Beginning:
    """Decide what is to be done, and make the workspace ready for it.

    Raises:
        UsageError: config or photographs cannot be used.
        StateError: they are not those of the checkpoint.
    """
    config = configure(workspace, overrides, upto=stage, fresh=restart)
    settings = settings_of(config, stage)
    photographs = find_photographs(workspace.images)
    _require_even_parts(stage, settings, processes)
    require_trackers(config.tracking.to)
    pins = read_pins(workspace, config, stage, fresh=restart)
    kept = {**kept_overrides(workspace, upto=stage, fresh=restart), **lasting(overrides)}
    now = fingerprint(workspace, config, stage, pins)
    decision = decide(workspace, stage, settings, now, restart=restart)
    replaces = restart and workspace.stage_folder(stage).exists()
    for warning in decision.warnings:
        observe(Warned(warning))
    if decision.action != "skip":
        if useless := never_stops(stage, settings):
            observe(Warned(useless))
        remove_staging(workspace.stage_folder(stage))
        if not replaces:
            set_aside_damaged(workspace.stage_folder(stage), decision.first_step)
        if earlier := {key: value for key, value in kept.items() if key not in overrides and is_read_by(stage, key)}:
            listed = " ".join(f"{key}={value}" for key, value in earlier.items())
            observe(Note(f"kept from an earlier --set, over ci.yaml: {listed}"))
    return Beginning(workspace, stage, config, photographs, kept, decision, pins, replaces)


def _require_even_parts(stage: Stage, settings: Training, processes: Processes) -> None:
    group = group_of(stage)
    parts = processes.count * settings.accumulation
    if settings.batch_size % parts:
        raise UsageError(
            f"{group}.batch_size is {settings.batch_size}, which {processes.count} processes with {settings.accumulation} "
            f"parts each ({group}.accumulation) do not divide",
            f"take another number of processes, or --set {group}.batch_size={-(-settings.batch_size // parts) * parts}",
            slug="batch-not-divided",
        )

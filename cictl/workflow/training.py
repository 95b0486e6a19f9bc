"""What both stages do alike: decide, load, train with checkpoints and a log, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cictl.config import Config, Stage, Training, command_of, group_of, is_read_by, settings_of
from cictl.data.photographs import Photograph, find_photographs
from cictl.errors import UsageError
from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    Event,
    Note,
    Observer,
    PhaseStarted,
    StageCompleted,
    StageStarted,
    Warned,
    ignore,
)
from cictl.processes import Processes, join
from cictl.records import Checkpoint, read_checkpoint, remove_staging, set_aside_damaged, step_folder
from cictl.workflow.batches import step_batches
from cictl.workflow.class_pictures import SEEN, require_same_class_pictures
from cictl.workflow.event_log import EventLog, read_losses
from cictl.workflow.going_on import going_on_explained
from cictl.workflow.pins import Pins, read_pins
from cictl.workflow.prepared import Prepared
from cictl.workflow.restart import begin_anew
from cictl.workflow.saving import Saver, manifest_facts, milestones_of, warn_of_other_circumstances
from cictl.workflow.stage import (
    TITLES,
    Decision,
    configure,
    decide,
    fingerprint,
    kept_overrides,
    lasting,
    require_unchanged,
)
from cictl.workflow.stopping import Watch, ended_early, fixed_batch_loss, never_stops
from cictl.workflow.tracking import Curves, require_trackers
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime

    Prepare = Callable[[Runtime, Config, list[Photograph], Pins, Observer], Prepared]


@dataclass(frozen=True)
class TrainingOutcome:
    """What a training command did: ``action`` is run, resume or skip (would be, for a dry run).

    ``ended_early`` says why it has fewer ``steps`` than were asked for, if it has.
    """

    stage: Stage
    action: str
    first_step: int
    steps: int
    checkpoint: str
    losses: dict[str, float]
    seconds: float
    dry_run: bool = False
    ended_early: str = ""


@dataclass(frozen=True)
class _Start:
    """What a run begins with: decided by one process, and the same for all that train together.

    Attributes:
        config: of the run.
        photographs: that it trains on.
        overrides: what --set gave this run and those before it, by dotted key.
        decision: what is to be done.
        pins: the commits that the models stay with.
        replaces: whether another training of the stage is to give way to it.
    """

    config: Config
    photographs: list[Photograph]
    overrides: Mapping[str, Any]
    decision: Decision
    pins: Pins
    replaces: bool


def run_stage(
    workspace: Workspace,
    stage: Stage,
    prepare: Prepare,
    observe: Observer,
    *,
    overrides: Mapping[str, Any],
    restart: bool,
    dry_run: bool,
) -> TrainingOutcome:
    """Train ``stage`` to its last step, going on from its last checkpoint; together with other processes, if there are any.

    Args:
        prepare: loads the model and makes the method.

    Raises:
        UsageError: config or photographs cannot be used.
        StateError: they are not those of the checkpoint.
        BusyError: another process trains here.
        ProcessLost: one of those that trained together has ended.
        Interrupted: by a signal, after a checkpoint.
    """
    if dry_run:
        return _foreseen(workspace, stage, overrides, restart=restart)
    processes = join()
    with ExitStack() as held:

        def begin() -> _Start:
            held.enter_context(workspace.lock(command_of(stage)))
            return _begin(workspace, stage, observe, processes, overrides, restart=restart)

        start = processes.share(begin)
        settings = settings_of(start.config, stage)
        if start.decision.action == "skip":
            return _outcome(workspace, stage, start.decision, settings)
        began = time.perf_counter()
        with going_on_explained(workspace, stage, restart=restart, replaces=start.replaces):
            saved = _train(workspace, stage, prepare, observe, start, processes)
        return _outcome(workspace, stage, start.decision, settings, saved=saved, seconds=time.perf_counter() - began)


def _foreseen(workspace: Workspace, stage: Stage, overrides: Mapping[str, Any], *, restart: bool) -> TrainingOutcome:
    """What a run would do; nothing is written or held."""
    config = configure(workspace, overrides, upto=stage, fresh=restart)
    settings = settings_of(config, stage)
    find_photographs(workspace.images)
    now = fingerprint(workspace, config, stage)
    decision = Decision("run", None) if restart else decide(workspace, stage, settings, now)
    return _outcome(workspace, stage, decision, settings, steps=settings.steps, dry_run=True)


def _begin(
    workspace: Workspace, stage: Stage, observe: Observer, processes: Processes, overrides: Mapping[str, Any], *, restart: bool
) -> _Start:
    """Decide, and make the workspace ready for it."""
    config = configure(workspace, overrides, upto=stage, fresh=restart)
    settings = settings_of(config, stage)
    photographs = find_photographs(workspace.images)
    _require_even_parts(stage, settings, processes)
    require_trackers(config.tracking.to)
    pins = read_pins(workspace, config, stage, fresh=restart)
    kept = {**kept_overrides(workspace, upto=stage, fresh=restart), **lasting(overrides)}
    now = fingerprint(workspace, config, stage, pins)
    decision = Decision("run", None) if restart else decide(workspace, stage, settings, now)
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
    return _Start(config, photographs, kept, decision, pins, replaces)


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


def _train(
    workspace: Workspace, stage: Stage, prepare: Prepare, observe: Observer, start: _Start, processes: Processes
) -> Checkpoint:
    from cictl.engine.runtime import Runtime, graceful_stop
    from cictl.engine.training import Schedule, adamw, fit

    config, decision = start.config, start.decision
    settings = settings_of(config, stage)
    first, folder = decision.first_step, workspace.stage_folder(stage)
    with graceful_stop(processes) as stop, ExitStack() as opened:
        log: Observer = ignore
        if processes.first:
            if config.tracking.to:
                observe = opened.enter_context(Curves(workspace, stage, config, observe))
            log = opened.enter_context(
                EventLog(workspace.log_file(stage), first if decision.checkpoint else None, observe, held=start.replaces)
            )
        log(PhaseStarted("loading the libraries"))
        runtime = Runtime.create(config.model.device, config.model.dtype, processes)

        def tell(event: Event) -> None:
            log(event)
            if stop and isinstance(event, DownloadProgress):  # a download may take longer than anybody waits
                raise stop.interruption("stopped while downloading; what has come is kept", "the same command goes on from there")

        prepared = prepare(runtime, config, start.photographs, start.pins, tell)
        method = prepared.method
        optimizer = adamw(method, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, rates=prepared.rates)
        facts = manifest_facts(workspace, stage, config, start.pins, start.overrides, runtime)
        facts[SEEN] = list(prepared.class_pictures.keys) if prepared.class_pictures else []
        evaluate = fixed_batch_loss(prepared, settings, config.seed, stage, settings.accumulation * processes.count)
        watch = Watch(settings, lambda: processes.share(evaluate), log)
        saver = Saver(folder, method, optimizer, runtime, facts, milestones_of(config, stage), watch, log)
        if decision.checkpoint:
            require_unchanged(workspace, stage, decision.checkpoint, saver.facts["fingerprint"])  # what was fetched, too
            require_same_class_pictures(workspace, decision.checkpoint.manifest, facts)
            warn_of_other_circumstances(decision.checkpoint, saver.facts, log)
            saver.restore(decision.checkpoint)
        elif start.replaces:
            if stop.agreed(processes):
                raise stop.interruption("stopped before the first step; nothing has changed", "the same command starts anew")
            if isinstance(log, EventLog):
                begin_anew(workspace, stage, saver, log)
        count = sum(parameter.numel() for parameter in method.trainable().values())
        log(StageStarted(stage, first, settings.steps, str(runtime.device), runtime.dtype_name, count))

        def along_the_way(done: int) -> None:
            saver.keep_if_due(done)
            if config.preview.interval and done % config.preview.interval == 0:
                prepared.preview(done)

        checkpoint, after_step = (saver, along_the_way) if processes.first else (_nothing, _nothing)
        if start.replaces:
            log(CheckpointSaved(0, folder / step_folder(0)))
        elif decision.checkpoint is None:
            checkpoint(0)  # it holds what the run was started with
        elif processes.first:
            saver.keep_if_due(first)  # the run may have been killed between checkpoint and snapshot
        schedule = Schedule(first, settings.steps, config.tracking.interval, config.checkpoint.interval)
        draw = partial(step_batches, prepared, settings, config.seed, stage, processes)
        began = time.perf_counter()
        done = fit(
            method, optimizer, draw, schedule, runtime, log, checkpoint=checkpoint, after_step=after_step, stop=stop,
            gradient_clip=prepared.gradient_clip, converged=watch,
        )  # fmt: skip
        processes.wait()  # until the first has written
        if done < settings.steps and not watch.converged:
            raise stop.interruption(
                f"{TITLES[stage]} stopped after {done} of {settings.steps} steps; a checkpoint is saved",
                f"{command_of(stage)} goes on from there",
            )
        saved, _ = read_checkpoint(folder / step_folder(done), verify=False)
        assert saved is not None
        if why := ended_early(stage, saved, settings):
            log(Note(why))
        log(StageCompleted(stage, done, time.perf_counter() - began))
    return saved


def _nothing(done: int) -> None:
    """What a process that does not write does in place of a checkpoint, and after a step."""


def _outcome(
    workspace: Workspace,
    stage: Stage,
    decision: Decision,
    settings: Training,
    *,
    saved: Checkpoint | None = None,
    steps: int = 0,
    seconds: float = 0.0,
    dry_run: bool = False,
) -> TrainingOutcome:
    checkpoint = saved or decision.checkpoint
    log = workspace.log_file(stage)
    losses = read_losses(log) if log.exists() else []
    return TrainingOutcome(
        stage=stage,
        action=decision.action,
        first_step=decision.first_step,
        steps=steps or (checkpoint.step if checkpoint else 0),
        checkpoint=workspace.shown(checkpoint.folder) if checkpoint else "",
        losses=losses[-1][1] if losses else {},
        seconds=round(seconds, 1),
        dry_run=dry_run,
        ended_early=ended_early(stage, checkpoint, settings) if checkpoint else "",
    )

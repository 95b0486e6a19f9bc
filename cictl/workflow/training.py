"""What all trainings do alike: decide, load, train with checkpoints and a log, and report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cictl.config import Stage, Training, command_of, settings_of
from cictl.data.photographs import find_photographs
from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    Event,
    Note,
    Observer,
    PhaseStarted,
    StageCompleted,
    StageStarted,
    ignore,
)
from cictl.processes import Processes, join
from cictl.records import Checkpoint, read_checkpoint, step_folder
from cictl.workflow.batches import step_batches
from cictl.workflow.beginning import Beginning, begin
from cictl.workflow.class_pictures import require_same_class_pictures
from cictl.workflow.event_log import EventLog, read_losses
from cictl.workflow.going_on import going_on_explained
from cictl.workflow.prepared import Prepared
from cictl.workflow.restart import begin_anew
from cictl.workflow.saving import Saver, make_saver, warn_of_other_circumstances
from cictl.workflow.stage import TITLES, Decision, configure, decide, fingerprint, require_unchanged
from cictl.workflow.stopping import ended_early
from cictl.workflow.tracking import Curves
from cictl.workspace import Workspace

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime, StopRequest

    Prepare = Callable[[Beginning, Runtime, Observer], Prepared]


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

        def decided() -> Beginning:
            held.enter_context(workspace.lock(command_of(stage)))
            return begin(workspace, stage, observe, processes, overrides, restart=restart)

        start = processes.share(decided)
        if start.decision.action == "skip":
            return _outcome(workspace, stage, start.decision, start.settings)
        began = time.perf_counter()
        with going_on_explained(workspace, stage, restart=restart, replaces=start.replaces):
            saved = _train(start, prepare, observe, processes)
        return _outcome(workspace, stage, start.decision, start.settings, saved=saved, seconds=time.perf_counter() - began)


def _foreseen(workspace: Workspace, stage: Stage, overrides: Mapping[str, Any], *, restart: bool) -> TrainingOutcome:
    """What a run would do; nothing is written or held."""
    config = configure(workspace, overrides, upto=stage, fresh=restart)
    settings = settings_of(config, stage)
    find_photographs(workspace.images)
    now = fingerprint(workspace, config, stage)
    decision = decide(workspace, stage, settings, now, restart=restart)
    return _outcome(workspace, stage, decision, settings, steps=settings.steps, dry_run=True)


def _train(start: Beginning, prepare: Prepare, observe: Observer, processes: Processes) -> Checkpoint:
    from cictl.engine.runtime import Runtime, graceful_stop
    from cictl.engine.training import Schedule, fit

    stage, config, settings, first = start.stage, start.config, start.settings, start.first_step
    with graceful_stop(processes) as stop, _recorded(start, observe, processes) as log:
        log(PhaseStarted("loading the libraries"))
        runtime = Runtime.configured(config.model, processes)
        prepared = prepare(start, runtime, _heeding(stop, log))
        saver = make_saver(start, prepared, runtime, log)
        _take_up(start, saver, stop, log)
        count = sum(parameter.numel() for parameter in prepared.method.trainable().values())
        log(StageStarted(stage, first, settings.steps, str(runtime.device), runtime.dtype_name, count))
        if start.replaces:
            log(CheckpointSaved(0, saver.folder / step_folder(0)))
        elif start.decision.checkpoint is None:
            saver(0)  # it holds what the run was started with
        else:
            saver.keep_if_due(first)  # the run may have been killed between checkpoint and snapshot

        def after_step(done: int) -> None:
            saver.keep_if_due(done)
            if processes.first and config.preview.interval and done % config.preview.interval == 0:
                runtime.release()
                prepared.preview(done)

        schedule = Schedule(first, settings.steps, config.tracking.interval, config.checkpoint.interval)
        draw = partial(step_batches, prepared, settings, config.seed, stage, processes)
        began = time.perf_counter()
        done = fit(
            prepared.method, saver.optimizer, draw, schedule, runtime, saver.divergence.watching(log), checkpoint=saver,
            after_step=after_step, stop=stop, gradient_clip=prepared.gradient_clip, converged=saver.watch,
        )  # fmt: skip
        processes.wait()  # until the first has written
        if done < settings.steps and not saver.watch.converged:
            raise stop.interruption(
                f"{TITLES[stage]} stopped after {done} of {settings.steps} steps; a checkpoint is saved",
                f"{command_of(stage)} goes on from there",
            )
        saved, _ = read_checkpoint(saver.folder / step_folder(done), verify=False)
        assert saved is not None
        if why := ended_early(stage, saved, settings):
            log(Note(why))
        log(StageCompleted(stage, done, time.perf_counter() - began))
    return saved


@contextmanager
def _recorded(start: Beginning, observe: Observer, processes: Processes) -> Iterator[Observer]:
    """Who is told of a training: the log, the curves and ``observe``, by the first process; by the others nobody."""
    if not processes.first:
        yield ignore
        return
    with ExitStack() as opened:
        if start.config.tracking.to:
            observe = opened.enter_context(Curves(start.workspace, start.stage, start.config, observe))
        keep = start.first_step if start.decision.checkpoint else None
        path = start.workspace.log_file(start.stage)
        yield opened.enter_context(EventLog(path, keep, observe, held=start.replaces))


def _heeding(stop: StopRequest, observe: Observer) -> Observer:
    """``observe``, which lets a stop end a download: that may take longer than anybody waits."""

    def tell(event: Event) -> None:
        observe(event)
        if stop and isinstance(event, DownloadProgress):
            raise stop.interruption("stopped while downloading; what has come is kept", "the same command goes on from there")

    return tell


def _take_up(start: Beginning, saver: Saver, stop: StopRequest, log: Observer) -> None:
    """Put back what the last checkpoint holds, or let the training until now give way to the new one."""
    if checkpoint := start.decision.checkpoint:
        require_unchanged(start.workspace, start.stage, checkpoint, saver.facts["fingerprint"])  # what was fetched, too
        require_same_class_pictures(start.workspace, checkpoint.manifest, saver.facts)
        warn_of_other_circumstances(checkpoint, saver.facts, log)
        saver.restore(checkpoint)
    elif start.replaces:
        if stop.agreed(saver.runtime.processes):
            raise stop.interruption("stopped before the first step; nothing has changed", "the same command starts anew")
        if isinstance(log, EventLog):
            begin_anew(start.workspace, start.stage, saver, log)


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

"""How far the work is, kept from its events; times come from the caller's clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    ImageSaved,
    Memory,
    PicturesPlanned,
    PreviewSaved,
    Progress,
    SamplingStep,
    StageCompleted,
    StageStarted,
    StepCompleted,
)
from cictl.sizes import size_in_words
from cictl.ui import formats
from cictl.ui.sparkline import History

_NEWEST_SHARE = 0.3  # of the newest pace in the one the ETA is made from


@dataclass(slots=True)
class Phase:
    """A part of the work that shows only that it goes on."""

    message: str
    started_at: float


@dataclass(slots=True)
class Download:
    """A model's files being fetched: ``done`` of ``total`` bytes, ``first_done`` of which were there before."""

    model: str
    started_at: float
    first_done: int
    file: str = ""
    done: int = 0
    total: int = 0

    @classmethod
    def of(cls, event: DownloadProgress, now: float, before: object = None) -> Download:
        """``before`` gone on with, or a new one if that is of another model."""
        same = isinstance(before, Download) and before.model == event.model
        state = before if isinstance(before, Download) and same else cls(event.model, now, event.done)
        state.file, state.done, state.total = event.file, event.done, event.total
        return state

    def facts(self, now: float) -> list[str]:
        """How much there is, and, once that can be known, how quickly it comes and when it ends."""
        known = [formats.of_total(self.done, self.total), formats.percent(self.done, self.total)]
        fetched, spent = self.done - self.first_done, now - self.started_at
        if fetched > 0 and spent > 0:
            pace = fetched / spent
            known.append(f"{size_in_words(pace)}/s")
            if self.done < self.total:
                known.append(f"ETA {formats.duration((self.total - self.done) / pace)}")
        return known


@dataclass(slots=True)
class Training:
    """One stage of training."""

    start: StageStarted
    started_at: float
    step: int
    losses: dict[str, float] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    seconds_per_step: float | None = None
    memory: Memory | None = None
    checkpoint: CheckpointSaved | None = None
    preview: PreviewSaved | None = None
    completed: StageCompleted | None = None
    _pace: float | None = None
    _finish_at: float | None = None
    _hears_steps: bool = False

    @classmethod
    def from_start(cls, start: StageStarted, now: float) -> Training:
        """A stage that begins, or goes on, at ``start.first_step``."""
        return cls(start=start, started_at=now, step=start.first_step)

    def step_completed(self, event: StepCompleted) -> None:
        """Takes one step's losses: cheap, since there are many."""
        self._hears_steps = True
        self.step = max(self.step, event.step)
        self._remember(event.losses)

    def progressed(self, event: Progress, now: float) -> None:
        """Takes the pace and the memory, and foresees the end."""
        self.step = max(self.step, event.step)
        self.losses = dict(event.losses)
        self.memory = event.memory
        self.seconds_per_step = event.seconds_per_step
        if not self._hears_steps:
            self._remember(event.losses)
        if event.seconds_per_step > 0:
            before = event.seconds_per_step if self._pace is None else self._pace
            self._pace = (1 - _NEWEST_SHARE) * before + _NEWEST_SHARE * event.seconds_per_step
            self._finish_at = now + self._pace * (event.steps - event.step)

    def complete(self, event: StageCompleted) -> None:
        """All steps are done."""
        self.completed = event
        self.step = max(self.step, event.steps)

    def elapsed(self, now: float) -> float:
        """Seconds since the stage began, or in all when it is complete."""
        return self.completed.seconds if self.completed else now - self.started_at

    def eta(self, now: float) -> float | None:
        """Seconds that are left, counting down between two events; None as long as nobody can know."""
        return None if self._finish_at is None else max(0.0, self._finish_at - now)

    def _remember(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if name not in self.histories:
                self.histories[name] = History()
            self.histories[name].add(value)


@dataclass(slots=True)
class Sampling:
    """Pictures being made, one or several at a time."""

    total: int
    done: int
    started_at: float
    step: int = 0
    steps: int = 0
    memory: Memory | None = None
    last: ImageSaved | None = None
    finished_at: float | None = None
    _in_hand: int | None = None
    _done_before: int = 0
    _first_step_at: float | None = None
    _first_work: float = 0.0
    _work: float = 0.0
    _worked_at: float = 0.0

    @classmethod
    def from_plan(cls, plan: PicturesPlanned, now: float) -> Sampling:
        """What is to be made, without what is there already."""
        one_left = plan.total - plan.kept == 1
        state = cls(plan.total, plan.kept, now, _in_hand=1 if one_left else None, _done_before=plan.kept)
        state.finished_at = now if plan.kept >= plan.total else None
        return state

    def sampled(self, event: SamplingStep, now: float) -> None:
        """Takes a denoising step of the pictures in hand."""
        if event.step <= self.step and self.done > self._done_before:
            # Only now is it known how many pictures the last round made at once.
            self._in_hand, self._done_before = self.done - self._done_before, self.done
        self.step, self.steps, self.memory = event.step, event.steps, event.memory
        self._note_work(now)

    def saved(self, event: ImageSaved, now: float) -> None:
        """Takes a finished picture."""
        self.done = min(self.total, self.done + 1)
        self.last = event
        self.memory = event.memory or self.memory
        if self.done >= self.total:
            self.finished_at = now

    def elapsed(self, now: float) -> float:
        """Seconds since the pictures were planned, until the last one."""
        return (now if self.finished_at is None else self.finished_at) - self.started_at

    def eta(self, now: float) -> float | None:
        """Seconds that are left; None until a round of pictures has shown how many are made at once."""
        if self._in_hand is None or self._first_step_at is None or self._work <= self._first_work:
            return None
        pace = (self._worked_at - self._first_step_at) / (self._work - self._first_work)
        return max(0.0, pace * (self.total - self._work) - (now - self._worked_at))

    def _note_work(self, now: float) -> None:
        if self._in_hand is None or not self.steps:
            work = float(self._done_before)
        else:
            in_hand = min(self._in_hand, self.total - self._done_before)
            work = self._done_before + in_hand * self.step / self.steps
        if self._first_step_at is None:
            self._first_step_at, self._first_work = now, work
        self._work, self._worked_at = work, now

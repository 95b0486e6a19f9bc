"""What the panel shows: takes events, and draws how far the work is whenever it is asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import RLock

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    Event,
    FileSaved,
    ImageSaved,
    Note,
    PhaseStarted,
    PicturesPlanned,
    PreviewSaved,
    Progress,
    PutAside,
    SamplingStep,
    StageCompleted,
    StageStarted,
    StepCompleted,
    Warned,
)
from cictl.files import as_typed
from cictl.sizes import size_in_words
from cictl.stops import STOPPING
from cictl.ui import draw, formats
from cictl.ui.glyphs import Glyphs, printable
from cictl.ui.panel import Moment, Outcome
from cictl.ui.state import Download, Phase, Sampling, Training

Clock = Callable[[], float]

_WIDEST = 100  # a panel much wider than this is a long way for the eye
_ROOM_FOR_ECHO = 2  # a terminal writes ^C after the last line, which must not wrap and move the panel


class Screen:
    """A renderable that knows the events so far.

    ``take`` returns the lines that belong above the panel instead of printing them: printing waits for the
    refreshing thread, and that thread waits for the lock held here.
    """

    def __init__(
        self,
        title: str,
        *,
        glyphs: Glyphs,
        encoding: str = "utf-8",
        verbose: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._glyphs = glyphs
        self._encoding = encoding
        self._title = printable(title, encoding)
        self._verbose = verbose
        self._clock = clock
        self._lock = RLock()
        self._outcome: Outcome = "running"
        self._stopping = False
        self._phase: Phase | None = None
        self._download: Download | None = None
        self._training: Training | None = None
        self._sampling: Sampling | None = None

    def take(self, event: Event) -> list[RenderableType]:
        """Takes an event; returns the lines to print above the panel."""
        with self._lock:
            return list(self._take(event, self._clock()))

    def stopping_soon(self) -> None:
        """A signal has asked for the end. Takes no lock: the signal may have come while it was held."""
        self._stopping = True

    def close(self, outcome: Outcome) -> list[RenderableType]:
        """The work is over: what is drawn from now on is its last state."""
        with self._lock:
            lines = list(self._end_phase(self._clock(), done=outcome == "finished"))
            self._outcome = outcome
            return lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width - _ROOM_FOR_ECHO, _WIDEST)
        with self._lock:
            moment = Moment(
                self._title, self._glyphs, self._encoding, width, self._clock(),
                self._outcome, self._phase, self._download, self._training, self._sampling,
            )  # fmt: skip
            panel = list(moment.drawn())
            if self._stopping and self._outcome == "running":
                panel.append(Text(formats.clip(STOPPING, width, self._glyphs.ellipsis), "yellow"))
        yield from panel

    def _take(self, event: Event, now: float) -> Iterable[RenderableType]:
        if not isinstance(event, Note | Warned):
            yield from self._end_phase(now)
        match event:
            case StepCompleted():
                if self._training:
                    self._training.step_completed(event)
                    self._end_preview()
            case Progress():
                if self._training:
                    self._training.progressed(event, now)
                    self._end_preview()
            case SamplingStep():
                if not self._sampling:
                    self._sampling = Sampling.from_plan(PicturesPlanned(1, 0), now)
                self._sampling.sampled(event, now)
            case ImageSaved():
                if not self._sampling:
                    self._sampling = Sampling.from_plan(PicturesPlanned(event.total, event.index - 1), now)
                self._sampling.saved(event, now)
            case PhaseStarted(message):
                self._phase = Phase(self._text(message), now)
            case DownloadProgress():
                self._download = Download.of(event, now, self._download)
                if event.done >= event.total:
                    yield from self._end_download(now)
            case StageStarted():
                yield from self._retire(now)
                self._training = Training.from_start(event, now)
            case StageCompleted():
                if self._training:
                    self._training.complete(event)
                    self._end_preview()
            case PicturesPlanned():
                if not self._in_training:
                    yield from self._retire(now)
                self._sampling = Sampling.from_plan(event, now)
            case CheckpointSaved(step, path):
                if self._training:
                    self._training.checkpoint = event
                if self._verbose or not self._training:
                    yield self._ticked(f"checkpoint of step {step}", as_typed(path))
            case PutAside(path, back):
                yield Text(self._text(formats.put_aside(as_typed(path))))
                yield Text(self._text(back), no_wrap=True)
            case PreviewSaved(step, path):
                if self._training:
                    self._training.preview = event
                    self._sampling = None
                if self._verbose or not self._training:
                    yield self._ticked(f"preview of step {step}", as_typed(path))
            case FileSaved(path, size, verified):
                note = f"saved {size_in_words(size)}{', verified' if verified else ''}"
                yield self._ticked(note, as_typed(path))
            case Note(message):
                if self._sampling and self._sampling.finished_at is not None and not self._in_training:
                    yield from self._retire(now)  # what is said now comes after those pictures
                yield from (Text(self._text(line)) for line in message.splitlines())
            case Warned(message):
                yield Text.assemble(("warning:", "bold yellow"), (f" {self._text(message)}", "yellow"))

    @property
    def _in_training(self) -> bool:
        return self._training is not None and self._training.completed is None

    def _text(self, text: object) -> str:
        return printable(text, self._encoding)

    def _ticked(self, what: str, path: str = "") -> draw.Done:
        return draw.Done(what, self._glyphs, self._text(path))

    def _end_preview(self) -> None:
        # Pictures in the middle of training are previews: once training goes on, they are over.
        self._sampling = None

    def _end_phase(self, now: float, *, done: bool = True) -> Iterable[RenderableType]:
        phase, self._phase = self._phase, None
        if phase and done and not self._in_training:
            yield self._ticked(f"{phase.message}  {formats.duration(now - phase.started_at)}")

    def _end_download(self, now: float) -> Iterable[RenderableType]:
        download, self._download = self._download, None
        if download:
            spent = formats.duration(now - download.started_at)
            yield self._ticked(f"fetched {self._text(download.model)}  {size_in_words(download.total)}  {spent}")

    def _retire(self, now: float) -> Iterable[RenderableType]:
        """Takes what is over off the panel, and leaves a line about it."""
        training, self._training = self._training, None
        sampling, self._sampling = self._sampling, None
        if training:
            stage, spent = self._text(training.start.stage), formats.duration(training.elapsed(now))
            losses = [f"{self._text(name)} {formats.loss(value)}" for name, value in training.losses.items()]
            yield draw.Done(f"{stage}: {training.step} steps in {spent}", self._glyphs, details=losses)
        if sampling:
            spent = formats.duration(sampling.elapsed(now))
            yield self._ticked(f"{sampling.done}/{sampling.total} pictures in {spent}")

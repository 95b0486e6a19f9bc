"""The panel's content: takes events, and draws itself whenever it is asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import RLock
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
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
from cictl.ui import draw, formats
from cictl.ui.glyphs import Glyphs, printable
from cictl.ui.state import Download, Phase, Sampling, Training

Clock = Callable[[], float]
Outcome = Literal["running", "finished", "stopped"]

_WIDEST = 100  # a panel much wider than this is a long way for the eye
_ROOM_FOR_ECHO = 2  # a terminal writes ^C after the last line, which must not wrap and move the panel
_WIDEST_LABEL = 14
_LOSS_STYLES = ("magenta", "blue", "yellow", "cyan")


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
        self._phase: Phase | None = None
        self._download: Download | None = None
        self._training: Training | None = None
        self._sampling: Sampling | None = None

    def take(self, event: Event) -> list[RenderableType]:
        """Takes an event; returns the lines to print above the panel."""
        with self._lock:
            return list(self._take(event, self._clock()))

    def close(self, outcome: Outcome) -> list[RenderableType]:
        """The work is over: what is drawn from now on is its last state."""
        with self._lock:
            lines = list(self._end_phase(self._clock(), done=outcome == "finished"))
            self._outcome = outcome
            return lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width - _ROOM_FOR_ECHO, _WIDEST)
        with self._lock:
            now = self._clock()
            lines = [*self._training_lines(width - 4, now), *self._sampling_lines(width - 4, now)]
            phase = self._phase_lines(width - (4 if lines else 0), now)
            style = self._border()
            title, subtitle = self._heading(width - 8), self._subtitle(width - 8)
        if lines:
            body = Group(*lines, *phase)
            yield Panel(body, title=title, title_align="left", subtitle=subtitle, subtitle_align="right",
                        border_style=style, width=width)  # fmt: skip
        else:
            yield from phase

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
                note = f"saved {formats.size(size)}{', verified' if verified else ''}"
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
            yield self._ticked(f"fetched {self._text(download.model)}  {formats.size(download.total)}  {spent}")

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

    def _border(self) -> str:
        if self._outcome == "stopped":
            return "yellow"
        over = self._sampling.finished_at is not None if self._sampling else not self._in_training
        return "green" if over else "cyan"

    def _heading(self, width: int) -> Text:
        stage = self._text(self._training.start.stage) if self._training else "pictures"
        end = " (stopped)" if self._outcome == "stopped" else ""
        name = formats.clip(f"{stage} {self._glyphs.separator} {self._title}", width - len(end), self._glyphs.ellipsis)
        return Text.assemble((name, "bold"), (end, "bold yellow"))

    def _subtitle(self, width: int) -> Text | None:
        if not self._training:
            return None
        start = self._training.start
        parts = (start.device, start.dtype, f"{start.trainable_parameters:,} parameters")
        line = f" {self._glyphs.separator} ".join(map(self._text, parts))
        return Text(formats.clip(line, width, self._glyphs.ellipsis), "dim")

    def _training_lines(self, width: int, now: float) -> Iterable[Text]:
        state = self._training
        if not state:
            return
        glyphs, steps = self._glyphs, state.start.steps
        yield draw.counted_bar(state.step, steps, width, glyphs, "green" if state.completed else "cyan")
        yield self._clip(draw.facts(self._training_facts(state, now), glyphs), width)
        yield Text()
        column = self._column()
        room = width - column - 2
        for index, name in enumerate(dict.fromkeys([*state.losses, *state.histories])):
            style = _LOSS_STYLES[index % len(_LOSS_STYLES)]
            history = state.histories.get(name)
            if history is not None:
                line = draw.loss_line(state.losses.get(name), history, room, glyphs, style)
                yield self._row(name, line, column, room)
        if state.memory and not self._sampling:
            memory = state.memory
            yield self._row(formats.memory_label(memory), draw.meter(memory, room, glyphs), column, room)
        if state.checkpoint:
            line = Text(f"step {state.checkpoint.step}  {self._text(state.checkpoint.path.name)}")
            yield self._row("checkpoint", line, column, room)
        if state.preview:
            path = formats.clip_path(self._text(as_typed(state.preview.path)), room, glyphs.ellipsis)
            yield self._row("preview", Text(path), column, room)

    def _training_facts(self, state: Training, now: float) -> Iterable[tuple[str, str]]:
        if state.seconds_per_step is not None:
            yield "", formats.rate(state.seconds_per_step)
        yield "elapsed", formats.duration(state.elapsed(now))
        if state.completed:
            yield "", "done" if state.completed.steps >= state.start.steps else "ended early"
        elif self._outcome == "running":
            eta = state.eta(now)
            yield "ETA", "--" if eta is None else formats.duration(eta)

    def _sampling_lines(self, width: int, now: float) -> Iterable[Text]:
        state = self._sampling
        if not state:
            return
        glyphs = self._glyphs
        column = self._column()
        room = width - column - 2
        over = state.finished_at is not None
        if not self._in_training:
            style = "green" if over else "cyan"
            yield draw.counted_bar(state.done, state.total, width, glyphs, style, " pictures")
            yield self._clip(draw.facts(self._sampling_facts(state, now), glyphs), width)
            yield Text()
        if state.steps and not over:
            line = draw.counted_bar(state.step, state.steps, room, glyphs, "magenta")
            yield self._row("denoising", line, column, room)
        if state.memory:
            memory = state.memory
            yield self._row(formats.memory_label(memory), draw.meter(memory, room, glyphs), column, room)
        if state.last:
            path = formats.clip_path(self._text(as_typed(state.last.path)), room, glyphs.ellipsis)
            yield self._row("saved", Text(path), column, room)

    def _sampling_facts(self, state: Sampling, now: float) -> Iterable[tuple[str, str]]:
        yield "elapsed", formats.duration(state.elapsed(now))
        if state.finished_at is not None:
            yield "", "done"
        elif self._outcome == "running":
            eta = state.eta(now)
            yield "ETA", "--" if eta is None else formats.duration(eta)

    def _phase_lines(self, width: int, now: float) -> list[Text]:
        if self._download:
            model, file = self._text(self._download.model), self._text(self._download.file)
            return draw.download(self._download, width, self._glyphs, now, model, file)
        if not self._phase:
            return []
        frames = self._glyphs.spinner
        spent = formats.duration(now - self._phase.started_at)
        message = formats.clip(self._phase.message, width - len(spent) - 4, self._glyphs.ellipsis)
        return [Text.assemble((frames[int(now * 8) % len(frames)], "cyan"), f" {message}  ", (spent, "dim"))]

    def _column(self) -> int:
        """The width of the labels, the same in all of the panel."""
        names = ["denoising"]
        if self._training:
            names += ["checkpoint", *self._training.losses, *self._training.histories]
        return min(_WIDEST_LABEL, max(cell_len(self._text(name)) for name in names))

    def _row(self, name: str, content: Text, column: int, room: int) -> Text:
        return Text.assemble(draw.label(self._text(name), column, self._glyphs), self._clip(content, room))

    def _clip(self, line: Text, width: int) -> Text:
        line.truncate(max(0, width), overflow="crop")
        return line

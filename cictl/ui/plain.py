"""Progress as plain lines, for logs and pipes: few, whole, and without colour."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TextIO

from cictl.events import (
    CheckpointSaved,
    DownloadProgress,
    Event,
    FileSaved,
    ImageSaved,
    Memory,
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
from cictl.ui import formats
from cictl.ui.glyphs import printable
from cictl.ui.screen import Clock
from cictl.ui.state import Download, Sampling, Training

_PARTS = 20  # a line at every twentieth of the steps at least
_SHORTEST_SILENCE = 10.0
_LONGEST_SILENCE = 60.0


class Pacer:
    """Says when the next line is due: after a twentieth of the work, or after some silence.

    The silence grows with the run, from 10 to 60 seconds, so that a night's log stays readable.
    """

    def __init__(self, now: float, *, by_share: bool = True) -> None:
        self._began = now
        self._said_at: float | None = None
        self._said_share = 0.0
        self._by_share = by_share

    def due(self, share: float, now: float) -> bool:
        """Whether a line about ``share`` (0 to 1) of the work is due; if so it counts as said."""
        silence = min(_LONGEST_SILENCE, max(_SHORTEST_SILENCE, (now - self._began) / _PARTS))
        by_share = self._by_share and (share - self._said_share >= 1 / _PARTS - 1e-9 or (share >= 1 > self._said_share))
        since = self._began if self._said_at is None and not self._by_share else self._said_at
        if since is not None and not by_share and now - since < silence:
            return False
        self._said_at, self._said_share = now, share
        return True


class PlainLines:
    """An observer that writes lines to ``stream``; ``verbose`` adds checkpoints and previews."""

    def __init__(self, stream: TextIO, *, verbose: int = 0, clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._verbose = verbose
        self._clock = clock
        self._training: Training | None = None
        self._sampling: Sampling | None = None
        self._download: Download | None = None
        self._pacer = Pacer(clock())

    def __call__(self, event: Event) -> None:
        """Writes the lines that ``event`` is worth, often none."""
        for line in self._lines(event, self._clock()):
            print(printable(line, self._encoding), file=self._stream, flush=True)

    def _lines(self, event: Event, now: float) -> Iterable[str]:
        match event:
            case StepCompleted():
                return
            case Progress():
                yield from self._progress(event, now)
            case SamplingStep():
                yield from self._denoising(event, now)
            case ImageSaved(index, total, path):
                if self._sampling:
                    self._sampling.saved(event, now)
                yield f"picture {index}/{total}  {as_typed(path)}"
            case Note(message):
                yield from message.splitlines()
            case Warned(message):
                yield f"warning: {message}"
            case PhaseStarted(message):
                yield f"{message} ..."
            case DownloadProgress():
                yield from self._fetching(event, now)
            case StageStarted(stage, first_step, steps, device, dtype, parameters):
                self._training, self._pacer = Training.from_start(event, now), Pacer(now)
                goes_on = f" from step {first_step}" if first_step else ""
                yield f"{stage}: {steps} steps{goes_on} on {device}, {dtype}, {parameters:,} parameters"
            case StageCompleted(stage, steps, seconds):
                self._training = None
                yield f"{stage}: {steps} steps done in {formats.duration(seconds)}"
            case PicturesPlanned(total, kept):
                self._sampling = Sampling.from_plan(event, now)
                if not self._training:
                    self._pacer = Pacer(now, by_share=False)
                    there = f", {kept} there already" if kept else ""
                    yield f"{formats.pictures(total)}{there}"
            case CheckpointSaved(step, path):
                if self._verbose:
                    yield f"checkpoint of step {step}  {as_typed(path)}"
            case PutAside(path, back):
                yield formats.put_aside(as_typed(path))
                yield back
            case PreviewSaved(step, path):
                if self._verbose:
                    yield f"preview of step {step}  {as_typed(path)}"
            case FileSaved(path, size, verified):
                yield f"saved {as_typed(path)}  {size_in_words(size)}{', verified' if verified else ''}"

    def _progress(self, event: Progress, now: float) -> Iterable[str]:
        stage = ""
        eta: float | None = event.seconds_per_step * (event.steps - event.step)
        if self._training:
            self._training.progressed(event, now)
            stage, eta = f"{self._training.start.stage} ", self._training.eta(now)
        if not self._pacer.due(event.step / event.steps if event.steps else 1.0, now):
            return
        yield "  ".join([
            f"{stage}{event.step:>{len(str(event.steps))}}/{event.steps}",
            f"{formats.percent(event.step, event.steps):>4}",
            *(f"{name} {formats.loss(value)}" for name, value in event.losses.items()),
            f"{formats.seconds(event.seconds_per_step)} s/step",
            *([] if eta is None else [f"ETA {formats.duration(eta)}"]),
            _memory(event.memory),
        ])  # fmt: skip

    def _fetching(self, event: DownloadProgress, now: float) -> Iterable[str]:
        before = self._download
        self._download = Download.of(event, now, before)
        if self._download is not before:
            self._pacer = Pacer(now)
        if self._pacer.due(event.done / event.total if event.total else 1.0, now):
            yield "  ".join([f"fetching {event.model}", *self._download.facts(now), event.file])

    def _denoising(self, event: SamplingStep, now: float) -> Iterable[str]:
        state = self._sampling
        if not state or self._training:
            return
        state.sampled(event, now)
        if not self._pacer.due(0.0, now):
            return
        eta = state.eta(now)
        yield "  ".join([
            f"{state.done}/{state.total} pictures",
            f"denoising {event.step}/{event.steps}",
            *([] if eta is None else [f"ETA {formats.duration(eta)}"]),
            _memory(event.memory),
        ])  # fmt: skip


def _memory(memory: Memory) -> str:
    return f"{formats.memory_label(memory)} {formats.memory_use(memory)}"

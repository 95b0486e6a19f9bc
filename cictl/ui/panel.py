"""The panel at one moment: how far the work is, drawn in so many cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from cictl.events import Memory
from cictl.files import as_typed
from cictl.ui import draw, formats
from cictl.ui.glyphs import Glyphs, printable
from cictl.ui.state import Download, Phase, Sampling, Training

Outcome = Literal["running", "finished", "stopped"]

_WIDEST_LABEL = 14
_LOSS_STYLES = ("magenta", "blue", "yellow", "cyan")


@dataclass(frozen=True)
class Moment:
    """What is going on, and what it is shown with.

    Attributes:
        title: of the work.
        width: of the panel, in cells.
        now: by the clock that the states were kept with.
    """

    title: str
    glyphs: Glyphs
    encoding: str
    width: int
    now: float
    outcome: Outcome
    phase: Phase | None
    download: Download | None
    training: Training | None
    sampling: Sampling | None

    def drawn(self) -> Iterable[RenderableType]:
        """The panel; nothing but a line where there is only a phase or a download."""
        lines = [*self._training_lines(), *self._sampling_lines()]
        if not lines:
            return self._phase_lines(self.width)
        return [
            Panel(
                Group(*lines, *self._phase_lines(self._inner)), title=self._heading(self.width - 8), title_align="left",
                subtitle=self._subtitle(self.width - 8), subtitle_align="right", border_style=self._border(), width=self.width,
            )
        ]  # fmt: skip

    @property
    def _inner(self) -> int:
        return self.width - 4

    @property
    def _column(self) -> int:
        """The width of the labels, the same in all of the panel."""
        names = ["denoising"]
        if self.training:
            names += ["checkpoint", *self.training.losses, *self.training.histories]
        return min(_WIDEST_LABEL, max(cell_len(self._text(name)) for name in names))

    @property
    def _room(self) -> int:
        """What is left beside a label."""
        return self._inner - self._column - 2

    @property
    def _in_training(self) -> bool:
        return self.training is not None and self.training.completed is None

    def _training_lines(self) -> Iterable[Text]:
        state = self.training
        if not state:
            return
        yield draw.counted_bar(state.step, state.start.steps, self._inner, self.glyphs, "green" if state.completed else "cyan")
        yield draw.facts(self._training_facts(state), self._inner, self.glyphs)
        yield Text()
        for index, name in enumerate(dict.fromkeys([*state.losses, *state.histories])):
            style = _LOSS_STYLES[index % len(_LOSS_STYLES)]
            history = state.histories.get(name)
            if history is not None:
                yield self._row(name, draw.loss_line(state.losses.get(name), history, self._room, self.glyphs, style))
        if state.memory and not self.sampling:
            yield self._memory_row(state.memory)
        if state.checkpoint:
            yield self._row("checkpoint", Text(f"step {state.checkpoint.step}  {self._text(state.checkpoint.path.name)}"))
        if state.preview:
            yield self._path_row("preview", state.preview.path)

    def _sampling_lines(self) -> Iterable[Text]:
        state = self.sampling
        if not state:
            return
        over = state.finished_at is not None
        if not self._in_training:
            style = "green" if over else "cyan"
            yield draw.counted_bar(state.done, state.total, self._inner, self.glyphs, style, " pictures")
            yield draw.facts(self._times(state, "done" if over else ""), self._inner, self.glyphs)
            yield Text()
        if state.steps and not over:
            yield self._row("denoising", draw.counted_bar(state.step, state.steps, self._room, self.glyphs, "magenta"))
        if state.memory:
            yield self._memory_row(state.memory)
        if state.last:
            yield self._path_row("saved", state.last.path)

    def _phase_lines(self, width: int) -> list[Text]:
        if self.download:
            model, file = self._text(self.download.model), self._text(self.download.file)
            return draw.download(self.download, width, self.glyphs, self.now, model, file)
        if not self.phase:
            return []
        frames = self.glyphs.spinner
        spent = formats.duration(self.now - self.phase.started_at)
        message = formats.clip(self.phase.message, width - len(spent) - 4, self.glyphs.ellipsis)
        return [Text.assemble((frames[int(self.now * 8) % len(frames)], "cyan"), f" {message}  ", (spent, "dim"))]

    def _training_facts(self, state: Training) -> Iterable[tuple[str, str]]:
        if state.seconds_per_step is not None:
            yield "", formats.rate(state.seconds_per_step)
        early = state.completed and state.completed.steps < state.start.steps
        yield from self._times(state, "ended early" if early else "done" if state.completed else "")

    def _times(self, state: Training | Sampling, end: str) -> Iterable[tuple[str, str]]:
        """How long it has taken, and how it has ended or when it will."""
        yield "elapsed", formats.duration(state.elapsed(self.now))
        if end:
            yield "", end
        elif self.outcome == "running":
            eta = state.eta(self.now)
            yield "ETA", "--" if eta is None else formats.duration(eta)

    def _memory_row(self, memory: Memory) -> Text:
        return self._row(formats.memory_label(memory), draw.meter(memory, self._room, self.glyphs))

    def _path_row(self, name: str, path: Path) -> Text:
        return self._row(name, Text(formats.clip_path(self._text(as_typed(path)), self._room, self.glyphs.ellipsis)))

    def _row(self, name: str, content: Text) -> Text:
        return Text.assemble(draw.label(self._text(name), self._column, self.glyphs), self._clip(content, self._room))

    def _border(self) -> str:
        if self.outcome == "stopped":
            return "yellow"
        over = self.sampling.finished_at is not None if self.sampling else not self._in_training
        return "green" if over else "cyan"

    def _heading(self, width: int) -> Text:
        stage = self._text(self.training.start.stage) if self.training else "pictures"
        end = " (stopped)" if self.outcome == "stopped" else ""
        name = formats.clip(f"{stage} {self.glyphs.separator} {self.title}", width - len(end), self.glyphs.ellipsis)
        return Text.assemble((name, "bold"), (end, "bold yellow"))

    def _subtitle(self, width: int) -> Text | None:
        if not self.training:
            return None
        start = self.training.start
        parts = (start.device, start.dtype, f"{start.trainable_parameters:,} parameters")
        line = f" {self.glyphs.separator} ".join(map(self._text, parts))
        return Text(formats.clip(line, width, self.glyphs.ellipsis), "dim")

    def _text(self, text: object) -> str:
        return printable(text, self.encoding)

    def _clip(self, line: Text, width: int) -> Text:
        line.truncate(max(0, width), overflow="crop")
        return line

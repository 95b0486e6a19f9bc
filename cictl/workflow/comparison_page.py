"""outputs/compare/report.html: a comparison as one page that needs no network. Pure text out of figures and pictures."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image

from cictl.evaluation.scores import Score
from cictl.workflow.results import axes

Points = Sequence[tuple[int, float]]

_THUMBNAIL = 128  # pixels a side
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 56
_BINS = 20  # of a curve: more steps than that are averaged, since the loss of one step is mostly noise
_INTERVAL = 1.96  # standard errors, for 95% of a normal distribution


@dataclass(frozen=True)
class PageRow:
    """A method on the page.

    Attributes:
        title: what it is called.
        colour: the number of its method's.
        last: whether it is what a training ended with, and not the best along the way.
        scores: each figure over the prompts, by its key.
        pictures: the first picture of each prompt that is shown, in the order of the prompts.
        losses: the diffusion loss of each step of its last stage; none for the base.
    """

    title: str
    colour: int
    last: bool
    scores: Mapping[str, Score]
    pictures: Sequence[Image.Image]
    losses: Points


def render(
    title: str,
    facts: Mapping[str, str],
    figures: Mapping[str, str],
    photographs: Sequence[Image.Image],
    prompts: Sequence[str],
    rows: Sequence[PageRow],
    auxiliary: Sequence[Image.Image] = (),
    *,
    unseen: int = 0,
) -> str:
    """The page.

    Args:
        facts: what the figures depend on.
        figures: the names of the figures by key, in the order of the columns.
        photographs: of the concept.
        prompts: whose pictures are on the page.
        auxiliary: what the A_i* of each photograph gives alone; none where there are no A_i*.
        unseen: how many more prompts there are in the figures.
    """
    own = {key: name for key, name in figures.items() if all(key in row.scores for row in rows)}
    pair = axes(own)
    parts = [
        _table(rows, own),
        _scatter(rows, *pair, own) if pair else "",
        _grid(photographs, prompts, rows, unseen),
        _auxiliary(photographs, auxiliary) if auxiliary else "",
        _curves(rows),
        "<h2>What the figures depend on</h2><dl>",
        *(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in facts.items()),
        "</dl>",
    ]
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{viewport}<title>{_text(title)}</title>'
    body = "\n".join([f"<h1>{_text(title)}</h1>", *parts])
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n'


def _table(rows: Sequence[PageRow], figures: Mapping[str, str]) -> str:
    heads = "".join(f"<th>{_text(name)}</th>" for name in ("method", *figures.values()))
    lines = []
    for row in rows:
        cells = "".join(f"<td>{_score(row.scores[key])}</td>" for key in figures)
        lines.append(f"<tr><th>{_named(row)}</th>{cells}</tr>")
    table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f"{table}<p>{_how_to_read(rows, figures)}</p>"


def _how_to_read(rows: Sequence[PageRow], figures: Mapping[str, str]) -> str:
    better = "higher is better, of leakage less" if "leakage" in figures else "higher is better"
    ring = "A ring is the best of what a training kept along its way, chosen by these very pictures, which flatters it. "
    return (
        f"Means over the prompts ± their standard deviation; {better}. {ring if any(not row.last for row in rows) else ''}"
        "One concept, and one training of each method: no verdict about methods."
    )


def _score(score: Score) -> str:
    if score.mean is None:
        return "-"
    return f"{score.mean:.3f}" + (f" <small>± {score.std:.3f}</small>" if score.std is not None else "")


def _scatter(rows: Sequence[PageRow], x: str, y: str, figures: Mapping[str, str]) -> str:
    """Two figures against each other, with 95% intervals of the mean over prompts."""
    spans = {key: [_interval(row.scores[key]) for row in rows] for key in (x, y)}
    to_x = _Axis.over([value for span in spans[x] for value in span], _MARGIN, _WIDTH - _MARGIN / 2)
    to_y = _Axis.over([value for span in spans[y] for value in span], _HEIGHT - _MARGIN, _MARGIN / 2)
    marks = []
    for number, row in enumerate(rows):
        (left, middle, right), (low, centre, high) = spans[x][number], spans[y][number]
        place = f"{to_x(middle):.1f}", f"{to_y(centre):.1f}"
        marks.append(
            f'<g class="{_classes(row)}"><title>{_text(row.title)}: {figures[x]} {middle:.3f}, {figures[y]} {centre:.3f}</title>'
            f'<line x1="{to_x(left):.1f}" x2="{to_x(right):.1f}" y1="{place[1]}" y2="{place[1]}"/>'
            f'<line x1="{place[0]}" x2="{place[0]}" y1="{to_y(low):.1f}" y2="{to_y(high):.1f}"/>'
            f'<circle cx="{place[0]}" cy="{place[1]}" r="6"/></g>'
        )
    note = "Lines: 95% intervals of the mean over prompts (1.96 standard errors), not over concepts or trainings."
    axes = _axes(to_x, to_y, figures[x], figures[y])
    title = f"<h2>{_text(figures[y])} against {_text(figures[x])}</h2>"
    return f"{title}{_svg(axes + ''.join(marks))}{_legend(rows)}<p>{note}</p>"


def _interval(score: Score) -> tuple[float, float, float]:
    mean = score.mean or 0.0
    reach = _INTERVAL * score.std / math.sqrt(score.count) if score.std is not None else 0.0
    return mean - reach, mean, mean + reach


def _curves(rows: Sequence[PageRow]) -> str:
    """The diffusion loss of each method's last stage, over the share of its steps that are done."""
    drawn = {number: _averaged(row.losses) for number, row in enumerate(rows) if len(row.losses) > 1}
    if not drawn:
        return ""
    to_x = _Axis.over([0, 1], _MARGIN, _WIDTH - _MARGIN / 2)
    values = [loss for curve in drawn.values() for _, loss in curve]
    to_y = _Axis.over(values, _HEIGHT - _MARGIN, _MARGIN / 2)
    lines = []
    for number, curve in drawn.items():
        points = " ".join(f"{to_x(share):.1f},{to_y(loss):.1f}" for share, loss in curve)
        lines.append(
            f'<g class="{_classes(rows[number])}"><title>{_text(rows[number].title)}</title><polyline points="{points}"/></g>'
        )
    axes = _axes(to_x, to_y, "share of the steps", "diffusion loss")
    note = "The loss of training hardly sees the concept, and its level depends on the prompts: it is no measure of success."
    legend = _legend([rows[number] for number in drawn])
    return f"<h2>Losses</h2>{_svg(axes + ''.join(lines))}{legend}<p>{note}</p>"


def _averaged(losses: Points) -> list[tuple[float, float]]:
    """A curve of so many points at most, each the mean of the steps around it."""
    count = min(_BINS, len(losses))
    edges = [round(index * len(losses) / count) for index in range(count + 1)]
    bins = [[loss for _, loss in losses[start:end]] for start, end in pairwise(edges)]
    return [((index + 0.5) / count, math.fsum(values) / len(values)) for index, values in enumerate(bins)]


@dataclass(frozen=True)
class _Axis:
    """Values ``low`` ... ``high`` as coordinates ``start`` ... ``end``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        """The range of ``values``, a little wider."""
        room = (max(values) - min(values)) * 0.05 or 0.5
        return cls(min(values) - room, max(values) + room, start, end)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, three to eight of them, evenly spaced."""
        room = self.high - self.low
        power = 10 ** math.floor(math.log10(room))  # room is one to ten of it
        step = next(step for step in (power / 5, power / 2, power, power * 2) if room / step < 8)
        return [step * number for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _axes(x: _Axis, y: _Axis, name_x: str, name_y: str) -> str:
    left, bottom, right, top = x.start, y.start, x.end, y.end
    parts = [f'<path class="axis" d="M{left},{top}V{bottom}H{right}"/>']
    parts += [f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:.2f}</text>' for tick in x.ticks()]
    parts += [f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>' for tick in y.ticks()]
    parts.append(f'<text x="{right}" y="{bottom + 40}" text-anchor="end">{_text(name_x)}</text>')
    parts.append(f'<text x="{left + 8}" y="{top + 10}">{_text(name_y)}</text>')
    return "".join(parts)


def _svg(content: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{content}</svg>'


def _legend(rows: Sequence[PageRow]) -> str:
    return f"<ul>{''.join(f'<li>{_named(row)}</li>' for row in rows)}</ul>"


def _named(row: PageRow) -> str:
    return f'<i class="{_classes(row)}"></i>{_text(row.title)}'


def _classes(row: PageRow) -> str:
    return f"c{row.colour}" if row.last else f"c{row.colour} best"


def _grid(photographs: Sequence[Image.Image], prompts: Sequence[str], rows: Sequence[PageRow], unseen: int) -> str:
    """The photographs, and below them a row a method and a column a prompt; every method's picture is of the same noise."""
    shown = "".join(_image(photograph, "a photograph") for photograph in photographs)
    heads = "".join(f"<th>{_text(prompt)}</th>" for prompt in ("", *prompts))
    lines = []
    for row in rows:
        pictures = zip(row.pictures, prompts, strict=True)
        cells = "".join(f"<td>{_image(picture, f'{row.title}: {prompt}')}</td>" for picture, prompt in pictures)
        lines.append(f"<tr><th>{_named(row)}</th>{cells}</tr>")
    table = f'<table class="grid"><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    above = f'<h2>Photographs</h2><div class="wide">{shown}</div>'
    note = f"<p>The first {len(prompts)} of {len(prompts) + unseen} prompts; the figures are of all.</p>" if unseen else ""
    return f'{above}<h2>Pictures, of the same noise in a column</h2><div class="wide">{table}</div>{note}'


def _auxiliary(photographs: Sequence[Image.Image], own: Sequence[Image.Image]) -> str:
    """Each photograph above what its auxiliary token gives, as Fig. 5 of the paper."""
    lines = []
    for name, pictures in (("photograph", photographs), ("A photo of A*", own)):
        cells = "".join(f"<td>{_image(picture, f'{name} {number}')}</td>" for number, picture in enumerate(pictures, 1))
        lines.append(f"<tr><th>{name}</th>{cells}</tr>")
    note = (
        "What the token of a photograph gives alone, drawn by the base model after stage 1: the less of the concept, the better."
    )
    table = f'<div class="wide"><table class="grid"><tbody>{"".join(lines)}</tbody></table></div>'
    return f"<h2>What each photograph has of its own</h2>{table}<p>{note}</p>"


def _image(picture: Image.Image, alt: str) -> str:
    small, buffer = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    small.save(buffer, "PNG", optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{content}" alt="{_text(alt)}" width="{_THUMBNAIL}">'


def _text(value: str) -> str:
    return html.escape(value)


_COLOURS = ("#888888", "#3b82f6", "#ef4444", "#f59e0b", "#a855f7", "#22c1a4", "#16a34a")
_STYLE = """
:root { color-scheme: light dark; --back: #fff; --fore: #1b1b1b; --faint: #8888; }
@media (prefers-color-scheme: dark) { :root { --back: #161618; --fore: #e6e6e6; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fore); background: var(--back); }
body { max-width: 72rem; margin: 0 auto; padding: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--faint); }
tbody th { text-align: left; white-space: nowrap; position: sticky; left: 0; background: var(--back); }
td { font-variant-numeric: tabular-nums; white-space: nowrap; } small { opacity: .65; }
thead th:first-child { text-align: left; }
.grid th, .grid td { padding: .2rem; font-size: .8rem; font-weight: normal; text-align: left; vertical-align: bottom; }
.grid tbody th { vertical-align: middle; }
.wide tbody th:has(i) { padding-left: 1.5rem; } tbody th i { position: absolute; left: .3rem; top: calc(50% - .35rem); }
img { image-rendering: auto; border-radius: 4px; margin-right: 2px; }
svg { width: 100%; max-width: 44rem; height: auto; } svg text { fill: var(--fore); font-size: 12px; }
svg line, svg polyline { stroke: var(--own); stroke-width: 2; fill: none; } svg circle { fill: var(--own); }
.axis { stroke: var(--faint); fill: none; }
i { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%; background: var(--own); margin-right: .4rem; }
i.best, .best circle { background: none; fill: var(--back); border: 2px solid var(--own); stroke: var(--own); stroke-width: 2; }
i { box-sizing: border-box; }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
dt { font-weight: bold; } dd { margin: 0 0 .4rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; } .grid img { width: 96px; }
  tbody th { white-space: normal; min-width: 5rem; font-size: .85rem; } th, td { padding: .3rem .4rem; }
  svg text { font-size: 21px; } svg line, svg polyline { stroke-width: 3; }
}
""" + "".join(f".c{number} {{ --own: {colour}; }}\n" for number, colour in enumerate(_COLOURS))

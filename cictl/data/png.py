"""Pictures out: PNG files with their metadata, and contact sheets. Imports no torch."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cictl.errors import ResourceError
from cictl.files import how_to_write, write_atomic

Picture = np.ndarray | Image.Image | Path

_GAP = 6
_TEXT = (40, 40, 40)


def write_png(path: Path, pixels: np.ndarray | Image.Image, texts: Mapping[str, str] | None = None) -> None:
    """Write [H, W, 3] bytes to ``path``, whole or not at all, with ``texts`` as its text chunks.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    chunks = PngInfo()
    for key, text in (texts or {}).items():
        chunks.add_itxt(key, text) if not text.isascii() else chunks.add_text(key, text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    with _to_be_written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())


def open_png(path: Path) -> Image.Image:
    """A PNG file, not decoded yet, and nothing else by that name: of other formats Pillow starts other programs (EPS).

    Raises:
        OSError, SyntaxError, ValueError: it is none, is damaged, or has more pixels than any picture that was drawn.
    """
    try:
        return Image.open(path, formats=["PNG"])
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from None


def opened(path: Path) -> Image.Image:
    """A picture on the disk, in colours; its file is closed."""
    with open_png(path) as image:
        return image.convert("RGB")


def require_writable(path: Path) -> None:
    """Refuse before the work of a picture what :func:`write_png` would refuse after it. Nothing is left of the trial.

    Raises:
        ResourceError: nothing can be written there.
    """
    with _to_be_written(path), tempfile.TemporaryFile(dir=_nearest_folder(path)):
        pass


def _nearest_folder(path: Path) -> Path:
    """The folder that ``path`` is in, or in which the folders above it would be made."""
    for folder in path.absolute().parents:
        with suppress(FileNotFoundError):
            folder.stat()
            return folder
    raise AssertionError("the root is there")


@contextmanager
def _to_be_written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written: {error.strerror}",
            how_to_write(path, error),
            slug="picture-not-written",
        ) from None


@dataclass(frozen=True)
class Row:
    """A row of a sheet: pictures, or their files, each with a caption of its own, and a heading above them."""

    heading: str
    pictures: Sequence[Picture]
    captions: Sequence[str] = ()


def sheet(rows: Sequence[Row], tile: int = 192) -> Image.Image:
    """Rows of pictures, each fitted into a square of ``tile`` pixels, with headings and captions; no two files open at once."""
    font, line = _font(max(12, tile // 14)), max(16, tile // 10)
    columns = max(len(row.pictures) for row in rows)
    heights = [tile + _GAP + (line if row.heading else 0) + (line if any(row.captions) else 0) for row in rows]
    canvas = Image.new("RGB", (columns * (tile + _GAP) + _GAP, sum(heights) + _GAP), "white")
    draw = ImageDraw.Draw(canvas)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        y = top
        if row.heading:
            draw.text((_GAP, y), _fitted(draw, row.heading, font, canvas.width - 2 * _GAP), _TEXT, font)
            y += line
        for column, picture in enumerate(row.pictures):
            x = _GAP + column * (tile + _GAP)
            _paste(canvas, picture, x, y, tile)
            if column < len(row.captions):
                draw.text((x, y + tile + 1), _fitted(draw, row.captions[column], font, tile), _TEXT, font)
        top += height
    return canvas


def _paste(canvas: Image.Image, picture: Picture, x: int, y: int, tile: int) -> None:
    image = _in_colours(picture)
    scale = tile / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    fitted = image.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(fitted, (x + (tile - size[0]) // 2, y + (tile - size[1]) // 2))


def _in_colours(picture: Picture) -> Image.Image:
    if isinstance(picture, Path):
        return opened(picture)
    return (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    text = " ".join(text.split())  # a prompt may have lines, which cannot be measured
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(f"{text}...", font) > width:
        text = text[:-1]
    return f"{text}..."

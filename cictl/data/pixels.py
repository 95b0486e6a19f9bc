"""Decode any picture to upright 8-bit sRGB on white, or say why it cannot be. Never writes; no torch."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from cictl.sizes import size_in_words

MOST_PIXELS = 200_000_000
MOST_BYTES = 256 << 20
SMALLEST_SIDE = 64

# Only these decoders run: Pillow knows formats (EPS, for one) that start other programs. "JPEG" covers MPO.
# GIF is here for a GIF that is named .jpg.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# What files of these formats begin with, and what stands behind "ftyp" in a HEIC.
_STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png"}
_OTHER_STARTS = (b"BM", b"II*\0", b"MM\0*", b"GIF8")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

# Formats in which phones keep side pictures beside the photograph: their frames are not an animation.
_FIRST_FRAME_IS_THE_PHOTOGRAPH = ("MPO", "HEIF")

_ORIENTATION_TAG = 0x0112
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableError(Exception):
    """One picture cannot be used; the text completes "<name>: ..."."""


def decode(path: Path) -> Image.Image:
    """The picture at ``path``: mode RGB, 8 bits a channel, sRGB, upright, on white; one frame, fully decoded.

    Raises:
        UnusableError: too many bytes or pixels (read from the header, before decoding), too small, several
            frames or pages, unreadable, not a picture, or damaged.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            raise UnusableError("the file is empty; copy it again")
        if size > MOST_BYTES:
            raise UnusableError(f"{size_in_words(size, 'MiB')} is over the limit of {size_in_words(MOST_BYTES)}; save it smaller")
        with _pillow_silenced(), Image.open(path, formats=_formats_for(path)) as image:
            _check_header(image)
            image.load()
            return _to_upright(_to_srgb(image), _orientation(image))
    except UnusableError:
        raise
    except UnidentifiedImageError:
        if _begins_as_a_picture(path):
            raise UnusableError("damaged: it begins as a picture does, but cannot be read; copy it again") from None
        raise UnusableError(
            "damaged, or not a picture in a format that cictl reads; copy it again, or save it as JPEG or PNG"
        ) from None
    except PermissionError:
        raise UnusableError("cannot be read: permission denied") from None
    except Exception as error:  # Decoders of damaged files raise anything: ValueError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UnusableError(f"cannot be decoded, truncated or damaged ({reason}); copy it again") from error


def to_training_pixels(image: Image.Image, resolution: int) -> np.ndarray:
    """The centre square of an RGB ``image``, as float32 [3, resolution, resolution] in [-1, 1].

    The same as a resize of the shorter side followed by a centre crop; done in one step, for the whole of a
    very long picture, resized, would not fit into memory.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Lanczos rings visibly when it enlarges; when it shrinks, Pillow widens it, which is the antialiasing.
    filter_ = Image.Resampling.BICUBIC if side < resolution else Image.Resampling.LANCZOS
    square = image.resize((resolution, resolution), filter_, box=(left, top, left + side, top + side))
    pixels = np.asarray(square, dtype=np.float32) / 127.5 - 1.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """What :func:`to_training_pixels` gives, [3, H, W] in [-1, 1], as a picture again, [H, W, 3] of bytes."""
    return np.rint((pixels.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).astype(np.uint8)


@contextlib.contextmanager
def _pillow_silenced() -> Iterator[None]:
    """No warnings, and no limit on pixels but ours: Pillow's only warns at 89 MP, and fails at 179 MP."""
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _formats_for(path: Path) -> tuple[str, ...]:
    """Pillow's names of the formats to try; HEIF only where the content says so, whatever the suffix says."""
    with open(path, "rb") as file:
        start = file.read(12)
    if start[4:8] != b"ftyp":
        return _FORMATS
    _register_heif()
    return (*_FORMATS, "HEIF")


def _begins_as_a_picture(path: Path) -> bool:
    """Whether the first bytes are those of a format that is read."""
    with open(path, "rb") as file:
        start = file.read(12)
    return bool(_suffix_of(start)) or start.startswith(_OTHER_STARTS)


def suffix_by_content(path: Path) -> str:
    """How the name of a file that begins as a photograph of the common formats should end; "" if it does not."""
    try:
        with open(path, "rb") as file:
            return _suffix_of(file.read(12))
    except OSError:
        return ""


def _suffix_of(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return ".heic"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for begins, suffix in _STARTS.items() if start.startswith(begins)), "")


@functools.cache
def _register_heif() -> None:
    """Teach Pillow to read HEIC. Imported here, for most folders do not need its codecs."""
    try:
        import pillow_heif
    except ImportError:
        raise UnusableError("HEIC needs the package pillow-heif; install it, or save as JPEG or PNG") from None
    pillow_heif.register_heif_opener()


def _check_header(image: Image.Image) -> None:
    """Refuse by what the header tells, before a pixel is decoded."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        million = width * height / 1e6
        limit = MOST_PIXELS / 1e6
        raise UnusableError(f"{width}x{height} is {million:.0f} megapixels, over {limit:.0f}; save it smaller")
    several = getattr(image, "is_animated", False)  # not n_frames: a file can have so many that nobody sees the end of counting
    if several and image.format == "TIFF":
        raise UnusableError("several pages; save the one you mean as JPEG or PNG")
    if several and image.format not in _FIRST_FRAME_IS_THE_PHOTOGRAPH:
        raise UnusableError("animated; save one frame as JPEG or PNG")
    if min(width, height) < SMALLEST_SIDE:
        raise UnusableError(f"{width}x{height} is under {SMALLEST_SIDE} pixels on a side; use a larger picture")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it is absent or unreadable (damaged EXIF spoils no pixels).

    Call it after ``load()``: Pillow turns a TIFF, and pillow-heif a HEIC, themselves, and then drop the tag.
    """
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _to_upright(image: Image.Image, orientation: int) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the whole EXIF anew, and fails where some other tag is odd.
    method = _TO_UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _to_srgb(image: Image.Image) -> Image.Image:
    """A loaded picture of any mode, as RGB in sRGB on white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith(("I", "F")):
        image = _deep_to_8_bits(image)
    elif image.mode == "La":  # Pillow converts premultiplied grey to LA and to nothing else.
        image = image.convert("LA")
    if not image.has_transparency_data:
        return _apply_profile(image, profile)
    # Compositing matters: what lies under transparent pixels is arbitrary, and dropping alpha exposes it.
    rgba = image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(_apply_profile(rgba.convert("RGB"), profile), mask=rgba.getchannel("A"))
    return white


def _deep_to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit (I;16, I;16B), 32-bit (I) or float (F) grey as L, or as LA where a grey means transparent.

    Pillow's own conversion cuts at 255 and gives white. RGB with 16 bits needs nothing: Pillow 13 opens it as
    8-bit RGB(A), with the upper bytes.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    top = float(values.max())
    if image.mode.startswith("F"):  # The file does not tell what white is: 1, 255 and 65535 are all in use.
        white = next((level for level in (1.0, 255.0, 65535.0) if top <= level), top)
    else:  # 255 * 257 = 65535. Pillow opens some 16-bit files as I, so I is 32-bit only where it must be.
        white = 65535.0 if top <= 65535 else 2.0**31 - 1
    grey = Image.fromarray(np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _apply_profile(image: Image.Image, profile: object) -> Image.Image:
    """``image`` as RGB, through its embedded ICC profile where there is one that fits."""
    if isinstance(profile, bytes) and profile:
        # A profile that is damaged, or is for other colours, is ignored, as viewers do.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip())
            if mode is not None and (mode == "CMYK") == (image.mode == "CMYK") and image.mode != "LAB":
                converted = ImageCms.profileToProfile(
                    image.convert(mode),
                    source,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if converted is not None:
                    return converted
    return image.convert("RGB")

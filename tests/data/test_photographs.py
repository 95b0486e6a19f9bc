"""The photographs: what is refused and why, and that every kind of picture decodes to its colours."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from cictl.data import photographs, pixels
from cictl.data.copying import copy_into, left_out
from cictl.data.photographs import (
    Photograph,
    find_photographs,
    fingerprints,
    list_files,
    load_pixels,
    open_upright,
)
from cictl.errors import UsageError

T = Image.Transpose


def noise(seed: int, width: int = 80, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    """Four flat colours, so that no two of the eight orientations look alike."""
    image = Image.new("RGB", (width, height), (250, 250, 250))
    for colour, box in (
        ((200, 0, 0), (0, 0)),
        ((0, 200, 0), (width // 2, 0)),
        ((0, 0, 200), (0, height // 2)),
    ):
        image.paste(colour, (*box, box[0] + width // 2, box[1] + height // 2))
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two good photographs."""
    made = tmp_path / "photographs"
    made.mkdir()
    noise(1).save(made / "a.jpg")
    noise(2).save(made / "b.png")
    return made


def refusal(folder: Path) -> str:
    """The message of the refusal, and that its hint says what to do."""
    with pytest.raises(UsageError) as caught:
        find_photographs(folder)
    assert caught.value.hint and caught.value.exit_code == 2
    return caught.value.message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes | None, *extra: bytes) -> bytes:
    """A PNG by hand: ``rows`` None leaves the picture data out."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = b"" if rows is None else chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def flat_png16(colour_type: int, *channels: int, extra: bytes = b"") -> bytes:
    row = b"\0" + struct.pack(f">{len(channels)}H", *channels) * 64
    return png(64, 64, 16, colour_type, row * 64, extra)


def icc(space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A minimal ICC profile, version 2.4."""
    table, body = b"", b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    rest = struct.pack(">I", len(tags)) + table + body
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    header = struct.pack(">I4sI4s4s4s", 128 + len(rest), b"\0\0\0\0", 0x02400000, kind, space, pcs)
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + xyz(0.9642, 1.0, 0.8249)[8:]
    return header.ljust(128, b"\0") + rest


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


P3_COLUMNS = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
SRGB_COLUMNS = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def display_p3() -> bytes:
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    for letter, column in zip((b"r", b"g", b"b"), P3_COLUMNS, strict=True):
        tags |= {letter + b"XYZ": xyz(*column), letter + b"TRC": gamma(2.2)}
    return icc(b"RGB ", b"XYZ ", tags)


def cmyk_profile() -> bytes:
    """A profile in which only K darkens: its white for pure cyan tells it from the plain conversion."""
    ramp = bytes(range(256))
    nodes = b"".join(bytes((0 if k else 255, 128, 128)) for _cmy in range(8) for k in (0, 1))
    matrix = struct.pack(">9i", *(65536 if i in (0, 4, 8) else 0 for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + ramp * 4 + nodes + ramp * 3
    return icc(b"CMYK", b"Lab ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"A2B0": lut})


# ---- listing


def test_list_files_takes_pictures_by_suffix_and_skips_hidden_files_and_subfolders(folder: Path) -> None:
    for name in ("C.JPEG", "d.HeIc", "e.txt", ".DS_Store", "._a.jpg", ".f.png"):
        (folder / name).write_bytes(b"x")
    (folder / "sub.jpg").mkdir()
    assert [path.name for path in list_files(folder)] == ["C.JPEG", "a.jpg", "b.png", "d.HeIc"]


def test_fingerprints_hash_without_decoding(folder: Path) -> None:
    (folder / "c.jpg").write_bytes(b"no picture")
    (folder / "d.jpg").symlink_to(folder / "gone.jpg")
    found = fingerprints(folder)
    assert found["c.jpg"] == hashlib.sha256(b"no picture").hexdigest()
    assert found["d.jpg"] == ""
    assert sorted(found) == ["a.jpg", "b.png", "c.jpg", "d.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "c.jpg")
    assert fingerprints(folder)["c.jpg"] == ""
    assert "c.jpg: not a file" in refusal(folder)


# ---- good folders


def test_photographs_are_sorted_by_content_and_keyed_by_it(folder: Path) -> None:
    noise(3).save(folder / "c.webp")
    before = find_photographs(folder)
    (folder / "a.jpg").rename(folder / "z.jpg")
    (folder / "c.webp").rename(folder / "0.webp")
    after = find_photographs(folder)
    assert [p.key for p in before] == [p.key for p in after] == sorted(p.key for p in before)
    assert all(p.sha256 == hashlib.sha256(p.path.read_bytes()).hexdigest() for p in after)
    assert all(p.key == p.sha256[:16] and len(p.key) == 16 for p in after)


def test_nothing_is_changed_and_nothing_is_written(folder: Path) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    quadrants().save(folder / "c.jpg", exif=orientation(6))
    before = state()
    for photograph in find_photographs(folder):
        load_pixels(photograph, 64)
    fingerprints(folder)
    assert state() == before


def test_importing_needs_no_torch_and_no_heif() -> None:
    code = "import sys, cictl.data.photographs; print({'torch', 'pillow_heif'} & set(sys.modules))"
    root = Path(photographs.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_link_inside_the_folder_is_followed(folder: Path) -> None:
    (folder / "b.png").rename(folder / ".hidden.png")
    (folder / "b.png").symlink_to(".hidden.png")
    assert len(find_photographs(folder)) == 2


def test_a_folder_that_is_itself_a_link_is_fine(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert len(find_photographs(link)) == 2


def test_mpo_is_a_photograph_with_its_first_frame(folder: Path) -> None:
    path = folder / "c.jpg"
    quadrants().save(path, "MPO", save_all=True, append_images=[noise(5)])
    with Image.open(path) as image:
        assert image.format == "MPO" and getattr(image, "n_frames", 0) == 2
    assert len(find_photographs(folder)) == 3
    assert np.abs(np.asarray(open_upright(path), int)[5, 5] - (200, 0, 0)).max() < 6


def test_heic_is_read_and_a_collection_gives_its_primary_picture(folder: Path) -> None:
    save_heic(quadrants(), folder / "c.heic", append_images=[noise(5)], save_all=True)
    save_heic(quadrants(100, 64), folder / "d.jpg")  # A phone's HEIC that was renamed.
    assert len(find_photographs(folder)) == 4
    assert np.abs(np.asarray(open_upright(folder / "c.heic"), int)[5, 5] - (200, 0, 0)).max() < 8


# ---- refusals


def test_all_faults_are_named_in_one_refusal(folder: Path) -> None:
    whole = (folder / "a.jpg").read_bytes()
    (folder / "c.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "d.gif").write_bytes(b"GIF89a")
    (folder / "e.mp4").write_bytes(b"x")
    (folder / "f.jpg").write_bytes(b"hello, this is text")
    (folder / "g.png").write_bytes(b"")
    noise(4, 63, 200).save(folder / "h.png")
    (folder / "i.dng").write_bytes(b"x")
    message = refusal(folder)
    lines = message.splitlines()
    assert lines[0] == f"7 files in {folder} cannot be used:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "c.jpg", "d.gif", "e.mp4", "f.jpg", "g.png", "h.png", "i.dng",
    ]  # fmt: skip
    for line, words in zip(
        lines[1:],
        ("truncated", "save it as JPEG or PNG", "not a picture", "not a picture", "empty", "63x200", ".dng"),
        strict=True,
    ):
        assert words in line


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".svg", ".PSD", ".raw", ".cr2", ".nef", ".dng", ".ARW", ".cr3", ".jxl"])
def test_other_pictures_are_refused_with_the_way_out(folder: Path, suffix: str) -> None:
    (folder / f"c{suffix}").write_bytes(b"x")
    assert f"c{suffix}: the format {suffix.lower()} is not supported; save it as JPEG or PNG" in refusal(folder)


@pytest.mark.parametrize(("name", "kind", "end"), [("c.jfif", "JPEG", ".jpg"), ("c", "PNG", ".png"), ("c.tmp", "WEBP", ".webp")])
def test_a_photograph_by_another_name_is_to_be_renamed(folder: Path, name: str, kind: str, end: str) -> None:
    noise(5).save(folder / name, kind)
    assert f"{name}: a picture, but its name does not end as one; let it end in {end}" in refusal(folder)


@pytest.mark.parametrize("name", ["c.mp4", "c.pdf", "c.txt", "c"])
def test_files_that_are_no_pictures_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    assert f"{name}: not a picture" in refusal(folder)


def test_what_operating_systems_leave_behind_is_ignored(folder: Path) -> None:
    for name in (".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"x")
    assert len(find_photographs(folder)) == 2


@pytest.mark.parametrize(("name", "kind"), [("c.jpg", "GIF"), ("c.webp", "WEBP"), ("c.png", "PNG")])
def test_animations_are_refused(folder: Path, name: str, kind: str) -> None:
    noise(5).save(folder / name, kind, save_all=True, append_images=[noise(6)])
    assert f"{name}: animated;" in refusal(folder)


def test_a_tiff_of_several_pages_is_refused(folder: Path) -> None:
    noise(5).save(folder / "c.tif", save_all=True, append_images=[noise(6), noise(7)])
    assert "c.tif: several pages;" in refusal(folder)


def test_the_pages_of_a_tiff_are_not_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chain of a hundred thousand pages in a file of 11 MB, counting takes a minute, and of ten times as many hours."""
    noise(5).save(folder / "c.tif", save_all=True, append_images=[noise(6), noise(7)])
    monkeypatch.setattr(TiffImageFile, "n_frames", property(lambda image: pytest.fail("counted")))
    assert "c.tif: several pages;" in refusal(folder)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "HEIF"])
def test_truncated_files_are_refused(folder: Path, kind: str) -> None:
    path = folder / f"c.{kind.lower()}"
    save_heic(noise(5), path) if kind == "HEIF" else noise(5).save(path, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert f"c.{kind.lower()}: " in refusal(folder)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
def test_a_file_that_breaks_off_in_its_header_is_called_damaged(folder: Path, kind: str) -> None:
    path = folder / f"c.{kind.lower()}"
    save_heic(noise(5), path) if kind == "HEIF" else noise(5).save(path, kind)
    path.write_bytes(path.read_bytes()[:16])
    assert "damaged" in refusal(folder) and "pillow" not in refusal(folder) and "or not a picture" not in refusal(folder)


@pytest.mark.parametrize(
    "content", [bytes(5000), b"<!doctype html><p>404", b"\0\0\0\x18ftypisom" + bytes(500), b"RIFF\x24\0\0\0WAVEfmt " + bytes(50)]
)
def test_what_is_no_picture_under_a_pictures_name_is_damaged_or_no_picture(folder: Path, content: bytes) -> None:
    (folder / "c.heic").write_bytes(content)
    assert "c.heic: damaged, or not a picture in a format that cictl reads" in refusal(folder)


def test_bombs_are_refused_from_the_header_without_warnings(folder: Path) -> None:
    (folder / "c.png").write_bytes(png(100_000, 100_000, 8, 2, None))
    (folder / "d.png").write_bytes(png(9_500, 9_500, 8, 2, None))  # Over 89 MP: Pillow warns.
    (folder / "e.png").write_bytes(png(13_500, 14_000, 8, 2, None))  # 189 MP, over Pillow's own limit of 179.
    zipped = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20)))
    (folder / "f.png").write_bytes(png(64, 64, 8, 0, bytes(65 * 64), zipped))
    with open(folder / "g.jpg", "wb") as file:
        file.truncate((256 << 20) + 1)
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lines = refusal(folder).splitlines()[1:]
    assert "100000x100000 is 10000 megapixels, over 200" in lines[0]
    assert [line.split(":")[0].strip() for line in lines] == ["c.png", "d.png", "e.png", "f.png", "g.jpg"]
    assert all("cannot be decoded" in line for line in lines[1:4])
    assert "over the limit of 256 MiB" in lines[4]
    assert limit is not None and limit == Image.MAX_IMAGE_PIXELS


def test_duplicates_by_bytes_and_by_pixels_are_refused(folder: Path) -> None:
    (folder / "c.jpg").write_bytes((folder / "a.jpg").read_bytes())
    noise(2).save(folder / "d.bmp")
    message = refusal(folder)
    assert "c.jpg: the same file as a.jpg" in message
    assert "d.bmp: the same picture, pixel for pixel, as b.png" in message


def test_links_that_leave_or_are_broken_are_refused(folder: Path) -> None:
    noise(5).save(folder.parent / "outside.png")
    (folder / "c.png").symlink_to("../outside.png")
    (folder / "d.png").symlink_to("gone.png")
    (folder / "e.png").symlink_to("../gone.png")
    (folder / "f.png").symlink_to("f.png")
    message = refusal(folder)
    assert "c.png: a link that leaves the folder;" in message
    assert "d.png: a broken link" in message
    assert "e.png: a link that leaves the folder and is broken" in message
    assert "f.png: a broken link" in message


def test_an_unreadable_file_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> Any:  # chmod does not stop root, which tests may run as.
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pixels, "_formats_for", denied)
    assert "a.jpg: cannot be read: permission denied" in refusal(folder)


@pytest.mark.parametrize("error", [struct.error("x"), SyntaxError("x"), MemoryError(), KeyError("x"), OSError()])
def test_any_error_of_a_decoder_is_a_refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    monkeypatch.setattr(pixels, "_check_header", fail)
    assert refusal(folder).count("cannot be decoded") == 2


def test_a_name_that_would_break_the_terminal_is_escaped(folder: Path) -> None:
    (folder / "c\n\x1b[31m.txt").write_bytes(b"x")
    assert r"c\n\x1b[31m.txt: not a picture" in refusal(folder)


def test_one_photograph_is_too_few_and_the_reason_is_given(folder: Path) -> None:
    (folder / "b.png").unlink()
    message = refusal(folder)
    assert "holds 1 photograph; 2 or more are needed" in message
    assert "Eq. 2" in message and "identically zero" in message


def test_an_absent_an_empty_and_a_wrong_folder_have_their_own_messages(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "none")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert "there are no photographs in" in refusal(tmp_path)
    assert "is not a folder" in refusal(tmp_path / ".DS_Store")


# ---- pixels


def orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def save_heic(image: Image.Image, path: Path, **kwargs: Any) -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    image.save(path, "HEIF", quality=95, **kwargs)


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".heic"])
def test_every_orientation_is_turned_upright(tmp_path: Path, value: int, suffix: str) -> None:
    upright = quadrants()
    stored_by = {
        2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM,
        5: T.TRANSPOSE, 6: T.ROTATE_90, 7: T.TRANSVERSE, 8: T.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(stored_by[value]) if value in stored_by else upright
    path = tmp_path / f"a{suffix}"
    if suffix == ".heic":  # Given the EXIF as bytes, pillow-heif writes the turn into the container too.
        save_heic(stored, path, exif=orientation(value))
    else:
        stored.save(path, exif=orientation(value), quality=95)
    difference = np.asarray(open_upright(path), int) - np.asarray(upright, int)
    centres = difference[16::32, 24::48]
    assert difference.shape == (64, 96, 3)
    assert np.abs(centres).max() <= 8
    noise(1).save(tmp_path / "b.png")
    found = {p.path.name: p for p in find_photographs(tmp_path)}
    assert (found[f"a{suffix}"].width, found[f"a{suffix}"].height) == (96, 64)


def test_damaged_exif_spoils_nothing(tmp_path: Path) -> None:
    quadrants().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    quadrants().save(tmp_path / "b.jpg", exif=orientation(99))
    quadrants().save(tmp_path / "c.jpg", exif=orientation(1)[:-6])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {open_upright(tmp_path / f"{name}.jpg").size for name in "abc"} == {(96, 64)}


def test_what_pillow_warns_of_does_not_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quadrants().save(tmp_path / "a.jpg")
    monkeypatch.setattr(pixels, "_check_header", lambda image: warnings.warn("Corrupt EXIF data", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_upright(tmp_path / "a.jpg").size == (96, 64)


def centre(path: Path) -> tuple[int, ...]:
    """The colour of a flat picture's centre, as the training sees it, back in 0 to 255."""
    loaded = load_pixels(Photograph(path, "", 0, 0), 64)
    assert loaded.shape == (3, 64, 64) and loaded.dtype == np.float32
    assert loaded.min() >= -1 and loaded.max() <= 1
    return tuple(int(value) for value in np.rint((loaded[:, 32, 32] + 1) * 127.5))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_mid_grey(tmp_path: Path, colour_type: int, channels: int) -> None:
    values = [0x8080] * channels
    if colour_type in (4, 6):
        values[-1] = 0xFFFF
    path = tmp_path / "a.png"
    path.write_bytes(flat_png16(colour_type, *values))
    assert np.abs(load_pixels(Photograph(path, "", 0, 0), 64)).max() < 0.005
    assert centre(path) == (128, 128, 128)


def test_16_bit_grey_with_a_transparent_grey_is_on_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(flat_png16(0, 0x8080, extra=chunk(b"tRNS", b"\x80\x80")))
    assert centre(tmp_path / "a.png") == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("I;16", 0x8080),
        ("I;16B", 0x8080),
        ("I", 0x8080),
        ("I", 0x40000000),
        ("F", 0.502),
        ("F", 128.0),
        ("F", 32896.0),
    ],
)
def test_deep_tiffs_keep_mid_grey(tmp_path: Path, mode: str, value: float) -> None:
    Image.new(mode, (80, 80), value).save(tmp_path / "a.tif")  # A flat one: what white is shows in the top value.
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == mode
    expected = 128 if value != 0x40000000 else 127.5
    assert abs(centre(tmp_path / "a.tif")[0] - expected) <= 0.5


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("I;16", 65535),
        ("I;16", 65500),
        ("I;16B", 65535),
        ("I", 65535),
        ("I", 2**31 - 1),
        ("F", 1.0),
        ("F", 255.0),
        ("F", 65535.0),
    ],
)
def test_deep_tiffs_keep_white(tmp_path: Path, mode: str, value: float) -> None:
    Image.new(mode, (80, 80), value).save(tmp_path / "a.tif")
    assert centre(tmp_path / "a.tif") == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("RGBA", (200, 10, 10, 0), (255, 255, 255)),
        ("RGBA", (200, 10, 10, 255), (200, 10, 10)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_composited_on_white(
    tmp_path: Path, mode: str, colour: tuple[int, ...], shown: tuple[int, ...], suffix: str
) -> None:
    image = Image.new(mode, (80, 80), colour)
    image.save(tmp_path / f"a{suffix}", lossless=True)
    assert centre(tmp_path / f"a{suffix}") == shown


def test_palettes_with_transparency_are_composited_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (80, 80), 1)
    image.putpalette([9, 9, 9, 0, 0, 0, 50, 100, 150])
    image.save(tmp_path / "one.png", transparency=1)
    image.save(tmp_path / "several.png", transparency=bytes((255, 51)))
    image.save(tmp_path / "none.png")
    image.convert("PA").save(tmp_path / "pa.tif")
    assert centre(tmp_path / "one.png") == (255, 255, 255)
    assert centre(tmp_path / "several.png") == (204, 204, 204)
    assert centre(tmp_path / "none.png") == (0, 0, 0)
    assert centre(tmp_path / "pa.tif") == (0, 0, 0)


@pytest.mark.parametrize(("mode", "colour"), [("RGBa", (0, 0, 0, 51)), ("La", (0, 51)), ("PA", (1, 51))])
def test_modes_that_pillow_cannot_save(mode: str, colour: tuple[int, ...]) -> None:
    image = Image.new(mode, (4, 4), colour)
    if mode == "PA":
        image.putpalette([9, 9, 9, 0, 0, 0])
    assert pixels._to_srgb(image).getpixel((0, 0)) == (204, 204, 204)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "RGBX"])
def test_the_other_modes_become_rgb(mode: str) -> None:
    white = Image.new("RGB", (4, 4), "white").convert("RGB" if mode == "RGBX" else mode)
    image = white.convert("RGBX") if mode == "RGBX" else white
    converted = pixels._to_srgb(image)
    assert converted.mode == "RGB" and converted.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_not_inverted(tmp_path: Path, suffix: str) -> None:
    Image.new("CMYK", (80, 80), (0, 255, 255, 0)).save(tmp_path / f"a{suffix}")
    assert centre(tmp_path / f"a{suffix}") == (255, 0, 0)


def test_ycck_is_not_inverted(tmp_path: Path) -> None:
    # Adobe stores inks inverted, and YCCK is the YCbCr of their complement: no ink is 255 for each, so Y 0,
    # Cb 128, Cr 128, K 255. Pillow writes CMYK inverted (255 becomes 0) as transform 0; 2 declares it YCCK.
    Image.new("CMYK", (80, 80), (255, 127, 127, 0)).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    content = (tmp_path / "a.jpg").read_bytes()
    at = content.index(b"Adobe") + 11
    assert content[at] == 0
    (tmp_path / "a.jpg").write_bytes(content[:at] + b"\x02" + content[at + 1 :])
    assert min(centre(tmp_path / "a.jpg")) >= 253


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    image = Image.new("CMYK", (80, 80), (255, 0, 0, 0))
    image.save(tmp_path / "plain.jpg")
    image.save(tmp_path / "profile.jpg", icc_profile=cmyk_profile())
    assert centre(tmp_path / "plain.jpg") == (0, 255, 255)
    assert min(centre(tmp_path / "profile.jpg")) >= 253


def test_lab_is_converted_to_srgb(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (80, 80), (200, 60, 90)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    assert lab is not None
    for profile in (None, display_p3()):  # the second is of RGB, and of other colours than these
        lab.save(tmp_path / "a.tif", icc_profile=profile)
        assert np.abs(np.subtract(centre(tmp_path / "a.tif"), (200, 60, 90))).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".heic"])
def test_display_p3_is_converted_to_srgb(tmp_path: Path, suffix: str) -> None:
    colour = np.array((180, 110, 120))
    linear = np.linalg.solve(np.array(SRGB_COLUMNS).T, np.array(P3_COLUMNS).T @ (colour / 255) ** 2.2)
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(expected - colour).max() > 8  # Else an ignored profile would pass.
    path = tmp_path / f"a{suffix}"
    image = Image.new("RGB", (80, 80), tuple(int(value) for value in colour))
    if suffix == ".heic":
        save_heic(image, path, icc_profile=display_p3())
    else:
        image.save(path, icc_profile=display_p3(), quality=100)
    assert np.abs(np.array(centre(path)) - expected).max() <= 3


def test_white_stays_white_and_black_black_in_a_profile_of_other_ones(tmp_path: Path) -> None:
    raised = b"curv\0\0\0\0" + struct.pack(">I2H", 2, 6553, 65535)  # its black has a tenth of the light of white
    blueish = {b"wtpt": xyz(0.9505, 1.0, 1.089), b"kTRC": raised}
    for grey in (0, 255):
        Image.new("L", (80, 80), grey).save(tmp_path / "a.png", icc_profile=icc(b"GRAY", b"XYZ ", blueish))
        assert np.abs(np.array(centre(tmp_path / "a.png")) - grey).max() <= 2


def test_a_grey_profile_is_applied_also_under_alpha(tmp_path: Path) -> None:
    linear_grey = icc(b"GRAY", b"XYZ ", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": gamma(1.0)})
    Image.new("L", (80, 80), 55).save(tmp_path / "l.png", icc_profile=linear_grey)
    Image.new("LA", (80, 80), (55, 255)).save(tmp_path / "la.png", icc_profile=linear_grey)
    expected = 255 * (1.055 * (55 / 255) ** (1 / 2.4) - 0.055)
    for name in ("l.png", "la.png"):
        assert np.abs(np.array(centre(tmp_path / name)) - expected).max() <= 2


@pytest.mark.parametrize("profile", [b"garbage", cmyk_profile(), display_p3()[:140]])
def test_a_profile_that_is_damaged_or_for_other_colours_is_ignored(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (80, 80), (10, 100, 200)).save(tmp_path / "a.png", icc_profile=profile)
    assert centre(tmp_path / "a.png") == (10, 100, 200)


@pytest.mark.parametrize(("size", "resolution"), [((301, 200), 64), ((200, 333), 100), ((80, 64), 128)])
def test_the_square_is_that_of_a_resize_followed_by_a_centre_crop(tmp_path: Path, size: tuple[int, int], resolution: int) -> None:
    smooth = noise(3, 9, 9).resize(size, Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    side = min(size)
    whole = smooth.resize(
        (round(size[0] * resolution / side), round(size[1] * resolution / side)),
        Image.Resampling.BICUBIC if resolution > side else Image.Resampling.LANCZOS,
    )
    left, top = (whole.width - resolution) // 2, (whole.height - resolution) // 2
    crop = np.asarray(whole.crop((left, top, left + resolution, top + resolution)), np.float32) / 127.5 - 1
    loaded = load_pixels(Photograph(tmp_path / "a.png", "", 0, 0), resolution)
    assert np.abs(loaded - crop.transpose(2, 0, 1)).mean() < 0.02


def test_reducing_is_antialiased(tmp_path: Path) -> None:
    board = np.indices((512, 512)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    assert np.abs(load_pixels(Photograph(tmp_path / "a.png", "", 0, 0), 64)).max() < 0.05


def test_small_photographs_are_enlarged_bicubically_and_large_ones_reduced_by_lanczos() -> None:
    for side, kernel in ((70, Image.Resampling.BICUBIC), (150, Image.Resampling.LANCZOS)):
        expected = np.asarray(noise(0, side, side).resize((96, 96), kernel)).transpose(2, 0, 1)
        assert np.array_equal(np.rint((pixels.to_training_pixels(noise(0, side, side), 96) + 1) * 127.5), expected)


@pytest.mark.parametrize("size", [(81, 70), (70, 81)])
def test_the_centre_is_the_centre_also_where_half_a_pixel_is_left_over(size: tuple[int, int]) -> None:
    image = noise(0, *size)
    turned = pixels.to_training_pixels(image.transpose(T.ROTATE_180), 64)[:, ::-1, ::-1]
    assert np.abs(turned - pixels.to_training_pixels(image, 64)).max() < 1.01 / 127.5


def test_a_very_long_picture_needs_no_memory_for_its_ends(tmp_path: Path) -> None:
    Image.new("L", (64, 60_000), 255).save(tmp_path / "a.png")
    assert load_pixels(Photograph(tmp_path / "a.png", "", 0, 0), 512).min() == 1


def test_open_upright_names_the_file_that_it_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.png: cannot be decoded"):
        open_upright(tmp_path / "gone.png")


# ---- copying


def test_photographs_that_lie_further_down_are_pointed_to(folder: Path, tmp_path: Path) -> None:
    outer = tmp_path / "images"
    for place in ("day 1", "day 2", ".thumbnails", "day 2/a/b"):
        shutil.copytree(folder, outer / place, dirs_exist_ok=True)
    assert find_photographs(folder)
    further = "itself; 4 lie further down, in day 1, day 2, where cictl does not look"
    assert refusal(outer).endswith(f"there are no photographs in {outer} {further}")
    with pytest.raises(UsageError, match=f"images: holds no photographs {further}"):
        copy_into([outer], tmp_path / "copies")
    shutil.copyfile(folder / "a.jpg", outer / "a.jpg")
    assert f"holds 1 photograph {further}; 2 or more are needed" in refusal(outer)


def test_copy_into_never_overwrites(folder: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        noise(ord(name)).save(tmp_path / name / "a.jpg")
    before = (folder / "a.jpg").read_bytes()
    originals = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg"]
    contents = [path.read_bytes() for path in originals]
    copies = copy_into(originals, folder)
    assert copies == [folder / "a-2.jpg", folder / "a-3.jpg"]
    assert [path.read_bytes() for path in copies] == contents == [path.read_bytes() for path in originals]
    assert (folder / "a.jpg").read_bytes() == before


def test_copy_into_takes_folders_makes_the_target_and_may_be_repeated(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "c.avif").write_bytes(b"x")
    (folder / "d.jfif").write_bytes((folder / "a.jpg").read_bytes())
    target = tmp_path / "work" / "photographs"
    first = copy_into([folder], target)
    assert left_out([folder, folder / "a.jpg"]) == [str(folder / "c.avif"), str(folder / "d.jfif")]
    assert [path.name for path in first] == ["a.jpg", "b.png"]
    assert copy_into([folder, folder / "a.jpg"], target) == first
    assert sorted(path.name for path in target.iterdir()) == ["a.jpg", "b.png"]
    assert copy_into([target], target) == first


def test_copy_into_names_all_that_is_wrong_and_copies_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.jpg").symlink_to("gone.jpg")
    (tmp_path / "text.jpg").write_bytes(b"a teapot")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "cut.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-400])
    (tmp_path / "same.jpg").write_bytes((folder / "a.jpg").read_bytes())
    target = tmp_path / "target"
    found = {
        "gone.jpg": "does not exist", "gone": "does not exist", "notes.txt": "not a picture", "empty": "holds no photographs",
        "link.jpg": "a broken link", "text.jpg": "damaged, or not a picture", "half/cut.jpg": "cannot be decoded",
        "same.jpg": "the same file as a.jpg",
    }  # fmt: skip
    with pytest.raises(UsageError) as caught:
        copy_into([folder, *(tmp_path / name.split("/")[0] for name in found)], target)
    assert caught.value.message.count("\n") == len(found)
    for name, words in found.items():
        assert f"{tmp_path / name}: {words}" in caught.value.message
    assert not target.exists()


def test_a_copy_that_fails_leaves_no_part(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Any, target: Any) -> None:
        target.write(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        copy_into([folder], tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []

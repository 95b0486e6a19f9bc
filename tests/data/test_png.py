"""Pictures that are read again, and sheets of them."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from cictl.data.png import Row, open_png, opened, sheet

_OPEN = Path("/proc/self/fd")


@pytest.mark.skipif(not _OPEN.exists(), reason="only Linux says which files are open")
def test_a_sheet_of_more_pictures_than_there_may_be_open_files(tmp_path: Path):
    import resource

    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(one.name) for one in _OPEN.iterdir()) + 8, limits[1]))
    try:
        made = sheet([Row("", paths)], tile=8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    drawn = np.asarray(made)[10]
    assert [list(drawn[10 + 14 * number]) for number in range(40)] == [[number] * 3 for number in range(40)]


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_a_file_of_another_format_by_the_name_of_a_png_starts_no_program(tmp_path: Path, monkeypatch):
    """Workspaces come from others, and Pillow hands PostScript to Ghostscript."""
    program, ran, path = tmp_path / "gs", tmp_path / "ran", tmp_path / "a-photo-of-s-seed0-12345678.png"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", str(program))
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match="cannot identify"):
        opened(path)
    assert not ran.exists()


def test_a_png_of_billions_of_pixels_is_refused_by_its_header(tmp_path: Path):
    path, whole = tmp_path / "x.png", io.BytesIO()
    Image.new("1", (8, 8)).save(whole, "PNG")
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + whole.getvalue()[24:29]
    path.write_bytes(whole.getvalue()[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole.getvalue()[33:])
    with pytest.raises(OSError, match="exceeds limit"):
        open_png(path)

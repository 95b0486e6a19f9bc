"""Sheets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cictl.data.png import Row, sheet

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

"""A sheet of the world: ``python -m cictl.toybox.world FILE.png``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cictl.data.png import Row, sheet, write_png
from cictl.toybox.world.render import render
from cictl.toybox.world.scene import sample_scene

_ROWS, _COLUMNS, _SEED = 4, 12, 0


def main() -> None:
    """48 pictures as training sees them."""
    parser = argparse.ArgumentParser(prog="python -m cictl.toybox.world", description="Draw a sheet of the toybox's world.")
    parser.add_argument("file", type=Path, metavar="FILE.png")
    path = parser.parse_args().file
    rng = np.random.default_rng(_SEED)
    rows = [Row("", [render(sample_scene(rng), rng)[0] for _ in range(_COLUMNS)]) for _ in range(_ROWS)]
    write_png(path, sheet(rows, tile=96))


if __name__ == "__main__":
    main()

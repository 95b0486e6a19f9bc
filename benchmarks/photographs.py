"""``python -m benchmarks.photographs [FOLDER]``: what `cictl check` looks at in sets of photographs, beside its limits.

FOLDER holds a folder for each set, as DreamBench does. Without it, the toybox's sets alone, as they are photographed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from cictl.data import diagnosis
from cictl.data.photographs import find_photographs, load_pixels
from cictl.toybox.concepts import development_concepts, failure_concepts, suite_concepts

_SIDE = 512


def main() -> None:
    """Print a Markdown table, a row for each set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    folder = parser.parse_args().folder
    print("| set | rim, most varied | rim, half of the pairs | two most alike | least sharp |\n|---|---|---|---|---|")
    for name, pictures in (*_toybox(), *(_photographed(folder) if folder else ())):
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in measure(pictures))} |", flush=True)


def measure(pictures: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """The four values of a set that the limits are held against; pictures [3, R, R] in [-1, 1]."""
    rims = sorted(diagnosis.rim_difference(one, other) for one, other in combinations(pictures, 2))
    varied, sharp = max(map(diagnosis.rim_variation, pictures)), min(map(diagnosis.sharpness, pictures))
    return varied, rims[len(rims) // 2], diagnosis.most_alike(pictures)[0], sharp / 1000


def _toybox() -> Iterator[tuple[str, list[np.ndarray]]]:
    for concept in (*suite_concepts(), *development_concepts(), *failure_concepts()):
        pictures = [picture.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1 for picture in concept.photographs()]
        yield concept.name, pictures


def _photographed(folder: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield one.name, [load_pixels(photograph, _SIDE) for photograph in find_photographs(one)]


if __name__ == "__main__":
    main()

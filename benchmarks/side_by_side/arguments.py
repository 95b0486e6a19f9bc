"""The command line that the side-by-side benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.machine import has_gpu


def parser(module: str, about: str | None, *, batch: str, limit: str, kept: str) -> argparse.ArgumentParser:
    """A parser with what both benchmarks are asked.

    Args:
        batch, limit: what --batch counts, and what --limit bounds.
        kept: what --work is for beside models and logs.
    """
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    made.add_argument("--work", type=Path, default=Path("speed-results"), help=f"for models, {kept}, logs; needs 5 GB")
    made.add_argument("--out", type=Path, help="the JSON; default: WORK/speed.json")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if has_gpu() else "cpu")
    made.add_argument("--resolution", type=int, help="in pixels; default: 512 on a GPU, else 128; tiny: 64")
    made.add_argument("--batch", type=int, help=f"{batch}; default: 4 on a GPU, else 1")
    made.add_argument("--limit", type=float, default=3600, help=f"seconds of turns{limit}")
    made.add_argument("--patience", type=float, help="seconds for a program to begin or to end a block; default: 150 on a GPU")
    made.add_argument("--count", action=argparse.BooleanOptionalAction, default=True, help="count operations and launches too")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of cictl's ci.yaml")
    made.add_argument("--tiny", action="store_true", help="a model of a few thousand weights, to try this out")
    return made


def parse(made: argparse.ArgumentParser, own: Callable[[bool], dict[str, Any]]) -> argparse.Namespace:
    """What was typed, and defaults for what was not.

    Args:
        own: defaults of the benchmark's own options, by whether a GPU is used.
    """
    given = made.parse_args()
    gpu = given.device == "cuda"
    common = {
        "resolution": 64 if given.tiny else 512 if gpu else 128, "batch": 4 if gpu else 1, "out": given.work / "speed.json",
        "patience": 150.0 if gpu else None,
    }  # fmt: skip
    for name, value in {**common, **own(gpu)}.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given

"""``python -m benchmarks.generate``: pictures by cictl and by diffusers' StableDiffusionPipeline, side by side.

Each is a process of its own that draws one batch after another with the untouched base model, by DDIM with guidance, and writes
PNGs; they take turns, a batch each. Times are those of a picture. "The first" is the time from the start of the process until
the first batch is on the disk, loading included. See benchmarks/steps for the clocks. Exits 1 if a program ended by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.generate.settings import GUIDANCE, ours, peers
from benchmarks.side_by_side.arguments import parse, parser
from benchmarks.side_by_side.folders import Folders, make_folders
from benchmarks.side_by_side.machine import about, add_result
from benchmarks.side_by_side.tables import summaries, table
from benchmarks.side_by_side.turns import Program, Timed, take_turns
from cictl.config import parse_overrides


def main() -> None:
    """Measure, print the table, and write the result."""
    given = _arguments()
    work = given.work.absolute()
    folders = make_folders(work, resolution=given.resolution, tiny=given.tiny)
    result: dict[str, Any] = {
        **about("benchmarks.generate", given.device),
        "models": "tiny random" if given.tiny else "Stable Diffusion 1.5, random weights", "device": given.device,
        "resolution": given.resolution, "batch": given.batch, "sampling_steps": given.sampling_steps, "guidance": GUIDANCE,
        "programs": [],
    }  # fmt: skip

    def keep(timed: Sequence[Timed]) -> None:
        result["programs"] = rows = summaries(timed)
        for row in rows:
            if "median_ms" in row:
                row["pictures_per_second"] = 1e3 / row["median_ms"]
        add_result(given.out, given.part, result)  # after every round: it may be cut off

    take_turns(
        _programs(folders, work, given), device=given.device, rounds=given.rounds, block=given.batch, limit=given.limit,
        logs=work / "logs" / given.part, patience=given.patience, count=given.count, tell=keep,
    )  # fmt: skip
    rows = result["programs"]
    shown = f"a picture of {given.resolution} px, {given.sampling_steps} steps, {given.batch} at a time"
    print(f"\n{shown}:\n\n{table(rows)}\n")
    for row in rows:
        if "median_ms" in row:
            first = f"the first after {row['first_block_after_s']:.1f} s"
            print(f"{row['name']}: {row['pictures_per_second']:.3g} pictures a second, {first}")
    print(f"\nwritten to {given.out}")
    sys.exit(1 if any("error" in row for row in rows) else 0)


def _programs(folders: Folders, work: Path, given: argparse.Namespace) -> list[Program]:
    shared: dict[str, Any] = {
        "device": given.device, "resolution": given.resolution, "batch": given.batch, "steps": given.sampling_steps,
    }  # fmt: skip
    others = peers(folders, work, **shared)
    others = others[-1:] if given.best else others[:-1] if given.others else others
    return [ours(folders, work, batches=given.rounds, settings=parse_overrides(given.set), **shared), *others]


def _arguments() -> argparse.Namespace:
    asked = parser("benchmarks.generate", __doc__, batch="pictures at a time", limit="", kept="pictures")
    asked.add_argument("--sampling-steps", type=int, help="DDIM steps; default: 50 on a GPU, else 10")
    asked.add_argument("--rounds", type=int, default=5, help="batches of each, at most")
    asked.add_argument("--part", default="generate", help="name of this result in the JSON, where others may be")
    which = asked.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the pipeline's faster precision alone")
    which.add_argument("--others", action="store_true", help="all but that, such as the documented one")
    return parse(asked, lambda gpu: {"sampling_steps": 50 if gpu else 10})


if __name__ == "__main__":
    main()

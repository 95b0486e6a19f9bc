"""``python -m benchmarks.ways``: a step and a picture in each way that a GPU can compute them, side by side.

Each way is cictl's own command in a process of its own, as in benchmarks/steps and benchmarks/generate, with settings of ci.yaml
or a UNet that is changed when it is loaded. Those of a group take turns, and the first, the default, is what the others'
times are divided by. Each group is a part of the JSON, so that others can be measured later. Operations are not counted unless
--count says so. Exits 1 if a way ended by itself; the others go on without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.generate import settings as drawing
from benchmarks.side_by_side.arguments import parse, parser
from benchmarks.side_by_side.folders import Folders, make_folders
from benchmarks.side_by_side.machine import about, add_result
from benchmarks.side_by_side.tables import summaries, table
from benchmarks.side_by_side.turns import Program, Timed, take_turns
from benchmarks.steps.settings import Run
from benchmarks.ways.programs import draw, train
from benchmarks.ways.settings import GROUPS, Way
from cictl.config import parse_overrides


def main() -> None:
    """Measure, print a table for each group, and write the results."""
    given = _arguments()
    folders = make_folders(given.work.absolute(), resolution=given.resolution, tiny=given.tiny)
    failed = False
    for group in given.groups:
        failed |= _measure(group, folders, given)
    print(f"\nwritten to {given.out}")
    sys.exit(1 if failed else 0)


def _measure(group: str, folders: Folders, given: argparse.Namespace) -> bool:
    """Time the ways of a group; whether one of them failed."""
    ways = [way for way in GROUPS[group] if given.compiled or not way.compiled]
    pictures = ways[0].what == "pictures"
    result: dict[str, Any] = {
        **about("benchmarks.ways", given.device), "device": given.device, "resolution": given.resolution, "batch": given.batch,
        "models": "tiny random" if given.tiny else "Stable Diffusion 1.5 and CLIP ViT-L/14, random weights",
        "of": f"a picture, {given.sampling_steps} steps" if pictures else f"a step, {given.block} a block", "ways": [],
    }  # fmt: skip

    def keep(timed: Sequence[Timed]) -> None:
        result["ways"] = summaries(timed)
        add_result(given.out, f"ways-{group}", result)  # after every round: it may be cut off

    try:
        programs = [_program(way, index, folders, given) for index, way in enumerate(ways)]
    except SystemExit as error:
        print(f"{group}: {error}", file=sys.stderr, flush=True)
        return True
    take_turns(
        programs, device=given.device, rounds=given.rounds, block=given.batch if pictures else given.block, limit=given.limit,
        logs=given.work / "logs" / f"ways-{group}", patience=given.patience, count=given.count, tell=keep,
    )  # fmt: skip
    rows = result["ways"]
    print(f"\n{group}, {given.resolution} px, batch {given.batch}, {result['of']}:\n\n{table(rows)}", flush=True)
    for row in rows:
        if "same_bits" in row:
            print(f"\n{row['name']}: a gradient has the same bits three times: {'yes' if row['same_bits'] else 'no'}", flush=True)
    return any("error" in row for row in rows)


def _program(way: Way, index: int, folders: Folders, given: argparse.Namespace) -> Program:
    """``way`` behind a gate, in a new workspace."""
    work = given.work.absolute() / "ways" / str(index)
    changes = {"compiled": way.compiled, "order_kept": way.order_kept}
    settings = {**way.settings, **parse_overrides(given.set)}
    if way.what == "pictures":
        ours = drawing.ours(
            folders, work, device=given.device, resolution=given.resolution, batch=given.batch, batches=given.rounds,
            steps=given.sampling_steps, settings=settings,
        )  # fmt: skip
        return replace(ours, name=way.name, run=draw, arguments={"changes": changes, **ours.arguments})
    run = Run(folders, work, given.device, given.resolution, given.batch, given.block, settings)
    ours = run.ours(way.what)
    return replace(ours, name=way.name, run=train, arguments={"changes": changes, **ours.arguments, "gradient": None})


def _arguments() -> argparse.Namespace:
    asked = parser(
        "benchmarks.ways", __doc__, batch="samples a step, and pictures at a time", limit=" of a group", kept="workspaces"
    )
    asked.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    asked.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=True, help="those of torch.compile too")
    asked.add_argument("--rounds", type=int, default=6, help="at most")
    asked.add_argument("--block", type=int, help="steps a block; default: 10 on a GPU, else 1")
    asked.add_argument("--sampling-steps", type=int, help="DDIM steps; default: 50 on a GPU, else 10")
    asked.set_defaults(count=False)
    return parse(asked, lambda gpu: {"block": 10 if gpu else 1, "sampling_steps": 50 if gpu else 10})


if __name__ == "__main__":
    main()

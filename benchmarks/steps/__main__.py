"""``python -m benchmarks.steps --peers FOLDER``: cictl's training steps against diffusers' example scripts, side by side.

Every program is a process of its own, runs exactly what its user would run, and waits between blocks of steps: cictl, the script,
the script, cictl, and so on, so that what disturbs the machine disturbs all of them. The ratio is the median over the rounds. On
a GPU all settings take turns together; on a CPU (one thread, processor time, batch 1) each setting takes turns with cictl
alone, since memory is short. Memory is the peak while steps are timed.

The scripts are run byte for byte as they are; the result says their SHA-256. They are timed by hooks on Accelerator.log,
which they call at the end of every step, and on the data loader. Exits 2 if a script is missing, 1 if a program ended by itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.arguments import parse, parser
from benchmarks.side_by_side.folders import make_folders
from benchmarks.side_by_side.machine import about, add_result
from benchmarks.side_by_side.tables import summaries, table
from benchmarks.side_by_side.turns import Program, Timed, take_turns
from benchmarks.steps.gradient import gradient_errors
from benchmarks.steps.programs import has_torchvision
from benchmarks.steps.settings import SCRIPTS, Run, Stage, require_scripts, script_hashes
from cictl.config import parse_overrides

_PAPER = {"invert": 2000, "finetune": 150}  # steps of each stage


def main() -> None:
    """Measure, print the tables, and write the result."""
    given = _arguments()
    stages: list[Stage] = [stage for stage in SCRIPTS if stage in given.stages]
    timed_against: list[Stage] = [] if given.alone else stages
    if problem := require_scripts(given.peers, timed_against):
        print(problem, file=sys.stderr)
        sys.exit(2)
    work = given.work.absolute()
    folders = make_folders(work, resolution=given.resolution, tiny=given.tiny)
    run = Run(folders, work, given.device, given.resolution, given.batch, given.block, parse_overrides(given.set))
    result: dict[str, Any] = {
        **about("benchmarks.steps", given.device),
        "clock": "processor time of one thread" if given.device == "cpu" else "clock, device synchronised after each block",
        "models": "tiny random" if given.tiny else "Stable Diffusion 1.5 and CLIP ViT-L/14, random weights",
        "device": given.device, "resolution": given.resolution, "batch": given.batch, "steps_per_block": given.block,
        "scripts_sha256": script_hashes(given.peers, timed_against),
        "torchvision": "torchvision" if has_torchvision() else "stand-in (benchmarks/steps/torchvision_stand_in.py)",
        "stages": {},
    }  # fmt: skip
    save = partial(add_result, given.out, given.part, result)
    for stage in stages:
        groups: list[list[dict[str, Any]]] = []
        result["stages"][stage] = groups
        for group in _groups(run, stage, given):
            _take_turns(run, stage, group, given, groups, save)
    if given.gradient and "invert" in timed_against and run.gradient.is_file():  # last: on a CPU the reference may take long
        errors = gradient_errors(folders.base, folders.clip, run.workspace, run.gradient, device=given.device)
        for kind, values in errors.items():
            shown = ", ".join(f"{name} {error:.1e}" for name, error in values.items())
            print(f"\n{kind.replace('_', ' ')} of the first step, |g - r| / |r|: {shown}", flush=True)
        result |= {"gradient_reference": "fp64" if given.device == "cpu" else "fp32", **errors}
        save()
    print(f"\nwritten to {given.out}")
    sys.exit(1 if any("error" in row for groups in result["stages"].values() for rows in groups for row in rows) else 0)


def _groups(run: Run, stage: Stage, given: argparse.Namespace) -> list[list[Program]]:
    """The peer's settings, as they take turns with cictl."""
    if given.alone:
        return [[]]
    peers = run.peers(stage, given.peers.absolute())
    peers = peers[-1:] if given.best else peers[:-1] if given.others else peers
    return [[peer] for peer in peers] if given.pairs else [peers]


def _take_turns(
    run: Run,
    stage: Stage,
    peers: list[Program],
    given: argparse.Namespace,
    groups: list[list[dict[str, Any]]],
    save: Callable[[], None],
) -> None:
    """Time cictl and each of ``peers``, add their rows to ``groups``, and print the table; saved after every round."""
    groups.append([])

    def keep(timed: Sequence[Timed]) -> None:
        groups[-1] = _rows(stage, timed)
        save()

    take_turns(
        [run.ours(stage), *peers], device=run.device, rounds=given.rounds, block=run.block, limit=given.limit,
        logs=run.work / "logs" / stage, patience=given.patience, count=given.count, tell=keep,
    )  # fmt: skip
    ours = groups[-1][0]
    print(f"\n{stage}, {run.resolution} px, batch {run.batch}:\n\n{table(groups[-1])}", flush=True)
    if "seconds_of_the_papers_steps" in ours:
        print(f"\n{_PAPER[stage]} steps: {ours['seconds_of_the_papers_steps']:.1f} s", flush=True)


def _rows(stage: Stage, timed: Sequence[Timed]) -> list[dict[str, Any]]:
    """A row of figures for cictl, and one for each peer."""
    rows = summaries(timed)
    if "median_ms" in rows[0]:
        rows[0]["seconds_of_the_papers_steps"] = _PAPER[stage] * rows[0]["median_ms"] / 1e3
    return rows


def _arguments() -> argparse.Namespace:
    asked = parser("benchmarks.steps", __doc__, batch="samples a step", limit=" for each group of programs", kept="workspaces")
    asked.add_argument(
        "--peers",
        type=Path,
        default=Path("peers"),
        help="folder of textual_inversion.py and train_custom_diffusion.py; default: peers",
    )
    asked.add_argument("--alone", action="store_true", help="cictl without the scripts, and without its first gradient")
    asked.add_argument("--part", default="steps", help="name of this result in the JSON, where others may be")
    asked.add_argument("--stages", nargs="+", choices=list(SCRIPTS), default=list(SCRIPTS))
    asked.add_argument("--rounds", type=int, help="at most; default: 20 on a GPU, else 5")
    asked.add_argument("--block", type=int, help="steps a block; default: 5 on a GPU, else 1")
    asked.add_argument(
        "--pairs", action=argparse.BooleanOptionalAction, help="each setting alone with cictl; default: on a CPU, not on a GPU"
    )
    which = asked.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the peers' best setting alone, where steps take minutes")
    which.add_argument("--others", action="store_true", help="all but the peers' best setting, such as the documented one")
    asked.add_argument(
        "--gradient", action=argparse.BooleanOptionalAction, default=True, help="compare the first gradient of stage 1"
    )
    return parse(asked, lambda gpu: {"rounds": 20 if gpu else 5, "block": 5 if gpu else 1, "pairs": not gpu})


if __name__ == "__main__":
    main()

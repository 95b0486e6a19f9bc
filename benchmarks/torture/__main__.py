"""``python -m benchmarks.torture``: everything that can happen to a training, done to it. Exits 1 if anything is lost.

What is done is kept in the folder of ``--work`` after each round, a file a part: started again, it goes on. Each round is a
process of its own, so that its memory is its own. ``--only PART --count N`` does a part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.torture.parts import LARGEST, PARTS, Part
from cictl.files import write_atomic

Round = Mapping[str, Any]


def main() -> None:
    """Do what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("torture-results"), help="folder of what was found")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    parser.add_argument("--count", type=int, help="how often in all, in place of each part's own number")
    parser.add_argument("--round", nargs=2, type=int, metavar=("COUNT", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    parts = [part for part in PARTS if given.only is None or part.name in given.only]
    if given.round:
        _print_round(parts[0], *given.round)
        return
    given.work.mkdir(parents=True, exist_ok=True)
    for part in parts:
        _complete(part, given.count if given.count and part.round else part.count, given.work)
    rounds = {part: known for part in PARTS if (known := _known(part, given.work))}
    write_atomic(given.work / "table.md", (table(rounds) + "\n").encode())
    print(table(rounds))
    wrong = [line for known in rounds.values() for one in known for line in one["wrong"]]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


def table(rounds: Mapping[Part, Sequence[Round]]) -> str:
    """In Markdown, a row a part."""
    lines = ["| what was done | how often, and what came of it | lost, or wrong | minutes |", "|---|---|---|---|"]
    for part, known in rounds.items():
        figures = ", ".join(f"{value:,} {name}" for name, value in _together(one["figures"] for one in known).items())
        wrong = sum(len(one["wrong"]) for one in known)
        minutes = sum(one["seconds"] for one in known) / 60
        lines.append(f"| {part.title} | {figures} | {wrong or 'nothing'} | {minutes:.1f} |")
    return "\n".join(lines)


def _complete(part: Part, count: int, work: Path) -> None:
    """Do the rounds of a part that are missing, each with a seed of its own."""
    known = list(_known(part, work))
    while (done := sum(one["count"] for one in known)) < count:
        number = min(part.round or count, count - done)
        print(f"{part.name}: {done} of {count} done ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.torture", "--only", part.name, "--round", str(number), str(len(known))]
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=_environment())
        if ended.returncode:
            sys.exit(f"the round of {part.name} ended with {ended.returncode}")
        found = json.loads(ended.stdout.splitlines()[-1])
        known.append({"count": number, "seed": len(known), "seconds": round(time.monotonic() - began, 1), **found})
        write_atomic(work / f"{part.name}.json", json.dumps({"part": part.title, "rounds": known}, indent=1).encode())


def _known(part: Part, work: Path) -> Sequence[Round]:
    file = work / f"{part.name}.json"
    rounds: list[Round] = json.loads(file.read_text("utf-8"))["rounds"] if file.is_file() else []
    return rounds


def _print_round(part: Part, count: int, seed: int) -> None:
    result = part.run(count, seed)
    print(json.dumps({"figures": dict(result.figures), "wrong": list(result.wrong)}), flush=True)


def _together(figures: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in figures:
        for name, value in one.items():
            total[name] = max(total.get(name, 0), value) if name == LARGEST else total.get(name, 0) + value
    return total


def _environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


if __name__ == "__main__":
    main()

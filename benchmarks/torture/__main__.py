"""``python -m benchmarks.torture``: everything that can happen to a training, done to it. Exits 1 if anything is lost."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Print a table, and what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--signals", type=int, default=100)
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    import torch

    torch.set_num_threads(1)  # a process with threads cannot be forked
    from benchmarks.torture import crash_points, disk, flips, kills, processes
    from benchmarks.torture.workspaces import Yard

    began, wrong = time.monotonic(), []
    print("| what was done | how often | what was lost, or wrong |\n|---|---|---|")

    def say(what: str, count: str, problems: list[str]) -> None:
        wrong.extend(problems)
        print(f"| {what} | {count} | {len(problems) or 'nothing'} |", flush=True)

    crash = crash_points.torture()
    say(f"death before, within and after each of {crash.calls} calls of a checkpoint", f"{crash.deaths}", crash.lost)
    control = crash_points.torture(crash_points.naive)
    losses = f"{control.deaths}, {len(control.lost)} of them with a loss"
    mild = [] if control.lost else ["the control, a naive writer, lost nothing: the torture is too mild"]
    say("the control, which must lose: the same with a naive writer", losses, mild)
    full = disk.torture()
    real = f"a real disk of 16 MB full at step {full.real}" if full.real else "a real disk of 16 MB: not mounted"
    say(f"a full disk at every write, sync and rename; {real}", f"{full.calls}", full.wrong)
    with tempfile.TemporaryDirectory() as folder:
        yard = Yard.build(Path(folder))
        killed = kills.torture(yard, given.kills)
        left = f"{killed.kills}, {killed.staging} left a half-written checkpoint"
        say(f"SIGKILL in both stages, {killed.workspaces} workspaces", left, killed.stuck + killed.differing)
        flipped = flips.torture(yard, given.flips)
        counts = f"{flipped.checkpoints} + {flipped.exports}"
        say("a flipped bit in checkpoints + in exports", counts, flipped.missed)
        raced = processes.races(yard, given.races)
        say("four trainings of one workspace started at once", f"{raced.times}", raced.wrong)
        signalled = processes.signals(yard, given.signals)
        say("SIGINT or SIGTERM", f"{signalled.times}", signalled.wrong)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes")
    for problem in wrong:
        print(problem)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

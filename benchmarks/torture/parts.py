"""The parts of the torture: what each does, how often, and what counts as wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LARGEST = "MiB of memory at most"  # of this figure the table has the maximum of all rounds, of the others the sum


@dataclass(frozen=True)
class Result:
    """What a round found.

    Attributes:
        figures: counts by what was counted.
        wrong: what was lost, missed or wrong, a line each.
    """

    figures: Mapping[str, int]
    wrong: Sequence[str]


@dataclass(frozen=True)
class Part:
    """One kind of torture.

    Attributes:
        name: for ``--only``.
        title: for the table.
        count: how often in all.
        round: how often at once; what is done is kept after each round. 0 where all of it is one thing.
        run: does so many, drawn with a seed.
    """

    name: str
    title: str
    count: int
    round: int
    run: Callable[[int, int], Result]


def _deaths(count: int, seed: int) -> Result:
    from benchmarks.torture import crash_points

    outcome = crash_points.torture()
    return Result({"calls": outcome.calls, "deaths": outcome.deaths}, outcome.lost)


def _control(count: int, seed: int) -> Result:
    from benchmarks.torture import crash_points

    outcome = crash_points.torture(crash_points.naive)
    mild = [] if outcome.lost else ["the control, a naive writer, lost nothing: the torture is too mild"]
    return Result({"deaths": outcome.deaths, "losses, as there must be": len(outcome.lost)}, mild)


def _disk(count: int, seed: int) -> Result:
    from benchmarks.torture import disk

    outcome = disk.torture()
    real = {"checkpoints until a real disk of 16 MB was full": outcome.real} if outcome.real else {}  # only root can mount one
    return Result({"calls": outcome.calls, **real}, outcome.wrong)


def _kills(count: int, seed: int) -> Result:
    from benchmarks.torture import kills
    from benchmarks.torture.workspaces import Yard

    with tempfile.TemporaryDirectory() as folder:
        outcome = kills.torture(Yard.build(Path(folder)), count, seed)
    mild = [] if 5 * outcome.staging >= outcome.kills else [f"only {outcome.staging} of {outcome.kills} hit a checkpoint"]
    figures = {
        "kills": outcome.kills, "half-written checkpoints left behind": outcome.staging, "workspaces": outcome.workspaces,
    }  # fmt: skip
    return Result(figures, [*outcome.stuck, *outcome.differing, *mild])


def _flips(count: int, seed: int) -> Result:
    from benchmarks.torture import flips
    from benchmarks.torture.workspaces import Yard

    with tempfile.TemporaryDirectory() as folder:
        outcome = flips.torture(Yard.build(Path(folder)), count, seed)
    return Result({"in checkpoints": outcome.checkpoints, "in exports": outcome.exports}, outcome.missed)


def _races(count: int, seed: int) -> Result:
    from benchmarks.torture import processes
    from benchmarks.torture.workspaces import Yard

    with tempfile.TemporaryDirectory() as folder:
        outcome = processes.races(Yard.build(Path(folder)), count)
    return Result({"races": outcome.times}, outcome.wrong)


def _signals(count: int, seed: int) -> Result:
    from benchmarks.torture import processes
    from benchmarks.torture.workspaces import Yard

    with tempfile.TemporaryDirectory() as folder:
        outcome = processes.signals(Yard.build(Path(folder)), count, seed)
    return Result({"signals": outcome.times, "trainings": outcome.trainings}, outcome.wrong)


def _configurations(count: int, seed: int) -> Result:
    from benchmarks.torture import fuzz

    with tempfile.TemporaryDirectory() as folder:
        return _fuzzed(fuzz.configurations(Path(folder), count, seed))


def _pictures(count: int, seed: int) -> Result:
    from benchmarks.torture import fuzz

    with tempfile.TemporaryDirectory() as folder:
        return _fuzzed(fuzz.pictures(Path(folder), count, seed))


def _fuzzed(outcome: object) -> Result:
    from benchmarks.torture.fuzz import MOST_MEBIBYTES, Outcome

    assert isinstance(outcome, Outcome)
    large = [f"{outcome.mebibytes} MiB of memory"] if outcome.mebibytes > MOST_MEBIBYTES else []
    used, refused = outcome.codes.get(0, 0), outcome.codes.get(2, 0)
    return Result({"used (exit 0)": used, "refused (exit 2)": refused, LARGEST: outcome.mebibytes}, [*outcome.wrong, *large])


PARTS = (
    Part(
        "deaths",
        "death before, within and after each file-system call of a checkpoint, by a kill and by a power cut",
        1,
        0,
        _deaths,
    ),
    Part("control", "the control, which must lose: the same with a naive writer", 1, 0, _control),
    Part("disk", "a full disk at every write, sync and rename, and a real disk of 16 MB", 1, 0, _disk),
    Part("kills", "SIGKILL in both stages, then the same command to the end, and the same bits", 200, 40, _kills),
    Part("flips", "a flipped bit in checkpoints and exports", 500, 100, _flips),
    Part("races", "four trainings of one workspace started at once", 50, 25, _races),
    Part("signals", "SIGINT or SIGTERM, its exit code, and the same bits in the end", 100, 25, _signals),
    Part("configurations", "odd ci.yaml files, `cictl status`", 10_000, 2_000, _configurations),
    Part("pictures", "broken pictures, `cictl invert --dry-run`", 5_000, 1_000, _pictures),
)

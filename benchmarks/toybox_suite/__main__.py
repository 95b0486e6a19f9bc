"""The ground-truth suite: ``python -m benchmarks.toybox_suite --work FOLDER``.

Trains the suite's concepts with the toybox's preset, draws its prompts with equal noise for every arm, lets the judge
read the pictures, and prints fidelity, alignment and leakage. Started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.toybox_suite import method_tables, methods, report
from benchmarks.toybox_suite.arms import GROUPS, Arm
from benchmarks.toybox_suite.jobs import Job, ceiling, done, run, write_atomic_in
from benchmarks.toybox_suite.plots import plot
from cictl.models.locate import locate_base
from cictl.toybox.concepts import ToyConcept, development_concepts, failure_concepts, suite_concepts

_SETS = {"suite": suite_concepts, "development": development_concepts, "failures": failure_concepts}


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toybox_suite", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of workspaces and results")
    parser.add_argument("--set", choices=_SETS, default="suite", help="which concepts")
    parser.add_argument("--arms", choices=GROUPS, default="main", help="what is compared")
    parser.add_argument("--seeds", type=int, default=3, help="pictures a prompt")
    parser.add_argument("--training-seeds", type=int, nargs="+", default=[0], metavar="N", help="train each concept with these")
    parser.add_argument("--full", action="store_true", help="10 pictures a prompt")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread each")
    parser.add_argument("--only", nargs="*", default=None, metavar="ARM", help="these arms alone")
    parser.add_argument("--plot", action="store_true", help="also draw the figures (needs the extra benchmarks)")
    parser.add_argument(
        "--methods", nargs="+", choices=("all", *methods.TUNED), metavar="METHOD",
        help="compare methods, on objects alone: the rows of Table 1; with --arms tuning eight configurations of each; with "
        "--arms drawing one training of each, drawn in several ways; with --arms ablations ours told the noun",
    )  # fmt: skip
    given = parser.parse_args()
    if given.arms == "drawing" and not given.methods:
        given.methods = ["finetune"]
    arms = _arms(given)
    # A style or a pose has no noun that is not the whole answer, and three of the methods must be told one.
    concepts = [concept for concept in _SETS[given.set]() if not given.methods or concept.kind == "object"]
    jobs = _jobs(given.work.absolute(), concepts, arms, 10 if given.full else given.seeds, given.training_seeds)
    _run(jobs, given.processes)
    results = _collect(concepts, jobs, len(given.training_seeds))
    tables = _tables(results, arms, given)
    print(tables)
    name = f"{given.set}-{given.arms}{'-methods' if given.methods else ''}"
    write_atomic_in(given.work / f"{name}.md", tables.encode())
    figures = {
        "weights": locate_base("toybox").identity,
        "pictures a prompt": jobs[0].seeds,
        "seeds of the trainings": given.training_seeds,
    }
    figures |= report.summary(results, arms)
    figures["harmonic mean"] = method_tables.summary(results, arms)
    write_atomic_in(given.work / f"{name}.json", json.dumps(figures, indent=1).encode())
    if given.plot:
        plot(figures, arms, given.work / f"{name}.png")


def _arms(given: argparse.Namespace) -> list[Arm]:
    every = GROUPS[given.arms]
    if given.methods:
        named = methods.TUNED if "all" in given.methods else given.methods
        chosen = {"main": methods.rows, "tuning": methods.configurations, "drawing": methods.ways_to_draw}.get(given.arms)
        every = chosen(named) if chosen else methods.TOLD
    return [arm for arm in every if given.only is None or arm.name in given.only or arm.training is None]


def _jobs(
    folder: Path, concepts: Sequence[ToyConcept], arms: Sequence[Arm], seeds: int, trained: Sequence[int] = (0,)
) -> list[Job]:
    """A job for each concept, training and seed of it; what a training is drawn with belongs to it."""
    trainings = list(dict.fromkeys(arm.training.name if arm.training else "" for arm in arms))
    jobs = []
    for name in trainings:
        own = tuple(arm for arm in arms if (arm.training.name if arm.training else "") == name)
        again = trained if own[0].training else (0,)
        jobs += [Job(folder, concept, own[0].training, own, seeds, seed) for seed in again for concept in concepts]
    return jobs


def _run(jobs: Sequence[Job], processes: int) -> None:
    missing = [job for job in jobs if not done(job)]
    print(f"{len(jobs)} jobs, {len(jobs) - len(missing)} of them done", flush=True)
    began = time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for count, name in enumerate(pool.imap_unordered(run, missing), 1):
            print(f"{count}/{len(missing)}  {name}  {(time.monotonic() - began) / 60:.1f} min", flush=True)


def _collect(concepts: Sequence[ToyConcept], jobs: Sequence[Job], trainings: int) -> report.Results:
    """All results; pictures of the same concept's trainings stand behind one another, and so often do those of the base."""
    arms: dict[str, dict[str, report.Readings]] = {}
    auxiliary: dict[str, dict[str, report.Readings]] = {}
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    steps: dict[str, dict[str, dict[str, int]]] = {}
    for job in jobs:
        result = done(job)
        assert result is not None  # _run has just made it
        for name, arm in result["arms"].items():
            readings = arm["readings"] if job.training else [own * trainings for own in arm["readings"]]
            _append(arms.setdefault(name, {}), job.concept.name, readings)
        if "auxiliary" in result and job.training:
            _append(auxiliary.setdefault(job.training.about, {}), job.concept.name, result["auxiliary"])
        if job.training:
            one = f"{job.concept.name}, seed {job.seed}"
            seconds.setdefault(job.training.name, {})[one] = result["seconds"]
            steps.setdefault(job.training.name, {})[one] = result.get("steps", {})  # older results have none
    return report.Results(concepts, arms, auxiliary, {one.name: ceiling(one, 20) for one in concepts}, seconds, steps)


def _append(readings: dict[str, report.Readings], concept: str, more: report.Readings) -> None:
    """Put ``more`` pictures of each task behind those that are there."""
    known = readings.get(concept, [[] for _ in more])
    readings[concept] = [[*before, *own] for before, own in zip(known, more, strict=True)]


def _tables(results: report.Results, arms: Sequence[Arm], given: argparse.Namespace) -> str:
    if given.methods and given.arms in ("tuning", "drawing"):
        return method_tables.configurations_table(results, arms) + "\n"
    if given.methods:
        arms, compared = [arm for _, arm in method_tables.chosen(results, arms)], method_tables.rows_table(results, arms)
    else:
        compared = report.main_table(results, arms)
    cubes = ['| "a cube-shaped S*" and another shape: form, colours and pattern all right | |', "|---|---|"]
    cubes.append(f"| the judge's ceiling | {report.cubes(results, results.ceiling)} |")
    cubes += [f"| {arm.about} | {report.cubes(results, results.arms[arm.name])} |" for arm in arms]
    parts = [
        compared,
        report.steps_table(results, arms),
        report.kind_table(results, arms),
        report.prompt_table(results, arms),
        report.concept_table(results, arms),
        "\n".join(cubes),
        report.auxiliary_table(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    main()

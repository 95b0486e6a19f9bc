"""The paper's Table 1 over DreamBench: ``python -m benchmarks.table1 --dreambench FOLDER --work FOLDER``.

Trains every method on every subject, draws DreamBench's 25 prompts (those for animals, or those for things) four times
each with equal noise, measures DINOv2 and CLIP-T of each training's last and best result, and prints the means over
subjects beside the paper's. Started again, it goes on. With --ray jobs run on a Ray cluster, one GPU each; FOLDER must
then be shared by its machines.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.table1 import report
from benchmarks.table1.dreambench import DreamBench, Subject, find
from benchmarks.table1.jobs import Job, done, identity, plan
from benchmarks.table1.running import here, on_ray
from cictl.config import parse_overrides
from cictl.errors import CictlError, Interrupted, UsageError
from cictl.files import write_atomic
from cictl.ui.report import exit_code, print_error
from cictl.workflow.rows import ROWS, choose_rows

_FOLDERS = ("model.clip", "evaluate.clip", "evaluate.dinov2", "evaluate.prompts")  # may be a path as well as a name


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing, print and write the table; 1 if a job failed."""
    given = _parser().parse_args(arguments)
    try:
        return _run(given, sys.argv[1:] if arguments is None else arguments)
    except Interrupted as stopped:  # its own hint names the command of one job
        print_error(Interrupted(stopped.signal_number, stopped.message, "the same command goes on from there"), json=False)
        return exit_code(stopped)
    except CictlError as error:
        print_error(error, json=False)
        return exit_code(error)
    except KeyboardInterrupt:  # while waiting for Ray
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table1", description=__doc__)
    parser.add_argument("--dreambench", type=Path, required=True, metavar="FOLDER", help="a checkout of google/dreambooth")
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER", help="of workspaces and results")
    parser.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="these alone")
    parser.add_argument("--methods", nargs="+", default=[], metavar="NAME", help=f"these rows alone: {', '.join(ROWS)}")
    parser.add_argument("--last", action="store_true", help="measure what each training ended with alone, not its best")
    parser.add_argument("--model", metavar="ID", help="base model, as model.id of ci.yaml; default: Stable Diffusion 1.5")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of ci.yaml; may be repeated")
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="on Ray: of a cluster, or else a new one here")
    parser.add_argument("--gpus", type=float, default=1, help="of each job on Ray; 0 is for CPUs")
    parser.add_argument("--cpus", type=float, default=1, help="of each job on Ray")
    return parser


def _run(given: argparse.Namespace, arguments: Sequence[str]) -> int:
    work = given.work.absolute()
    dreambench = find(given.dreambench.absolute())
    subjects = _chosen(dreambench, given.subjects)
    rows = choose_rows([name for text in given.methods for name in text.split(",")])
    overrides = {key: _whole(key, value) for key, value in parse_overrides(given.set).items()}
    model = _whole("model.id", given.model) if given.model else None
    jobs = plan(work, subjects, rows, model=model, overrides=overrides, last_alone=given.last)
    identity(jobs[0], jobs[0].rows[0])  # so that a wrong --set is said at once
    failed = _do(jobs, given)
    results = {row: {job.subject.name: found for job in jobs if row in job.rows and (found := done(job, row))} for row in rows}
    shown = {**({"model.id": model} if model else {}), **overrides}
    outcome = report.Outcome(dreambench, rows, results, failed, shown, given.last)
    table = report.markdown(outcome)
    command = f"python -m benchmarks.table1 {shlex.join(arguments)}"
    work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / "table1.md", f"`{command}`\n\n{table}".encode())
    figures = {"command": command, **report.summary(outcome)}
    write_atomic(work / "table1.json", json.dumps(figures, indent=1, ensure_ascii=False).encode())
    print(table)
    return 1 if failed else 0


def _chosen(dreambench: DreamBench, names: Sequence[str]) -> list[Subject]:
    known = {subject.name: subject for subject in dreambench.subjects}
    unknown = [name for name in names if name not in known]
    if unknown or not known:
        raise UsageError(
            f"no photographs of {', '.join(unknown) or 'any subject of DreamBench'}",
            f"there are: {', '.join(known)}"
            if known
            else "--dreambench takes a checkout of https://github.com/google/dreambooth",
            slug="dreambench-subject-unknown",
        )
    return [subject for subject in dreambench.subjects if not names or subject.name in names]


def _whole(key: str, value: Any) -> Any:
    """A path as every machine finds it; anything else as it is."""
    may_be_path = key in (*_FOLDERS, "model.id") and isinstance(value, str) and value != "toybox"
    return str(Path(value).expanduser().resolve()) if may_be_path and Path(value).expanduser().exists() else value


def _do(jobs: Sequence[Job], given: argparse.Namespace) -> dict[str, str]:
    """Do what is missing; what went wrong, by job."""
    missing = [job for job in jobs if not all(done(job, row) for row in job.rows)]
    print(f"{len(jobs)} jobs, {len(jobs) - len(missing)} of them done", flush=True)
    if not missing:
        return {}
    failed, began = {}, time.monotonic()
    finished = here(missing) if given.ray is None else on_ray(missing, given.ray or None, given.gpus, given.cpus)
    with closing(finished):
        for count, (job, problem) in enumerate(finished, 1):
            minutes = (time.monotonic() - began) / 60
            print(f"{count}/{len(missing)}  {job.name}  {problem or 'done'}  {minutes:.1f} min", flush=True)
            if problem:
                failed[job.name] = problem
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""Doing jobs: one after another in this process, or on a Ray cluster, which decides what runs where."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from pathlib import Path

from benchmarks.table1.jobs import Job, attempt
from cictl.errors import Interrupted

_RETRIES = 5
_ROOT = Path(__file__).parents[2]

Finished = Generator[tuple[Job, str], None, None]


def here(jobs: Sequence[Job]) -> Finished:
    """Each job with what went wrong, if anything, in the order given."""
    for job in jobs:
        yield job, attempt(job)


def on_ray(jobs: Sequence[Job], address: str | None, gpus: float, cpus: float) -> Finished:
    """Each job with what went wrong, if anything, in the order that they end.

    A job whose node is lost, or that a signal stopped, is started again and goes on from its last checkpoint.

    Args:
        address: of a cluster; None is the one that RAY_ADDRESS names, or else a new one on this machine.
        gpus, cpus: of each job.
    """
    import ray

    # A node finds this package in the same folder as this one.
    ray.init(address, log_to_driver=True, runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT)}})
    if gpus > ray.cluster_resources().get("GPU", 0):
        print(f"the cluster has not {gpus:g} GPU now: jobs wait for it (--gpus 0 takes CPUs)", file=sys.stderr, flush=True)
    task = ray.remote(attempt).options(num_gpus=gpus, num_cpus=cpus, max_retries=_RETRIES, retry_exceptions=[Interrupted])
    running = {task.remote(job): job for job in jobs}
    try:
        while running:
            (ended,), _ = ray.wait(list(running))
            job = running.pop(ended)
            try:
                yield job, ray.get(ended)
            except ray.exceptions.RayError as error:
                yield job, f"{type(error).__name__}: {error}"
    finally:
        ray.shutdown()

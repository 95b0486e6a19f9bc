"""Trains S* in many workspaces on a Ray cluster: python ray_concepts.py WORKSPACE... [--gpus 1]

cictl must be installed on every node, and the workspaces must lie where every node sees them. A task that is lost with its
node is started again by Ray; cictl then goes on from its last checkpoint. So does this script when it is run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import ray

STAGES = ("invert", "finetune")
FAILS_AGAIN = {2, 3, 4}  # settings or photographs, the state of the workspace, the base model: a person must look


class GoOn(Exception):
    """A stage was stopped or failed in passing; the same command goes on with it."""


@ray.remote(max_retries=5, retry_exceptions=[GoOn])
def train(workspace: Path) -> str:
    """Both stages in ``workspace``: what is done is skipped, what was stopped goes on. Returns what went wrong, if anything."""
    for stage in STAGES:
        command = [sys.executable, "-m", "cictl", stage, "-C", str(workspace), "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode in FAILS_AGAIN:
            return done.stderr.strip()
        if done.returncode:
            raise GoOn(f"cictl {stage} ended with exit code {done.returncode}: {done.stderr.strip()}")
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description="Train S* in many workspaces on a Ray cluster.")
    parser.add_argument("workspaces", nargs="+", type=Path, metavar="WORKSPACE")
    parser.add_argument("--gpus", type=float, default=1, help="of each concept; 0.5 puts two on one GPU, 0 is for CPUs")
    arguments = parser.parse_args()
    tasks = {train.options(num_gpus=arguments.gpus).remote(path.resolve()): path for path in arguments.workspaces}
    failed = 0
    while tasks:
        (task,), _ = ray.wait(list(tasks))
        workspace = tasks.pop(task)
        try:
            problem = ray.get(task)
        except ray.exceptions.RayError as error:
            problem = str(error)
        print(f"{workspace}: {problem or 'done'}", flush=True)
        failed += bool(problem)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Several real processes of one command, on gloo, as a launcher would start them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from cictl.cli.app import main
from cictl.processes import join


@dataclass(frozen=True)
class Ended:
    """How each process ended, by rank: its exit code (minus the signal that killed it), and what it wrote."""

    codes: list[int | None]
    out: list[str]
    err: list[str]


@dataclass(frozen=True)
class Together:
    """Processes that were started, by rank, and the folder of what they write."""

    processes: list[BaseProcess]
    folder: Path

    def end(self, seconds: float = 60) -> Ended:
        """Wait for all; one that has not ended by then is killed, and its exit code says so."""
        for process in self.processes:
            process.join(seconds)
            if process.exitcode is None:
                process.kill()
                process.join()
        count = range(len(self.processes))
        out, err = ([(self.folder / f"{name}-{rank}").read_text() for rank in count] for name in ("out", "err"))
        return Ended([process.exitcode for process in self.processes], out, err)

    def send(self, number: int, *ranks: int) -> None:
        for rank in ranks:
            os.kill(self.processes[rank].pid or 0, number)


def start_together(count: int, folder: Path, *arguments: str, work: Callable[[int], object] | None = None) -> Together:
    """``cictl ARGUMENTS``, or ``work`` of the rank, in ``count`` processes that find each other by their environment.

    They are forks of this one, which spares them the import of the libraries.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        for number, name in ((1, "out"), (2, "err")):
            with (folder / f"{name}-{rank}").open("w") as file:
                os.dup2(file.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        join.cache_clear()
        sys.argv = ["cictl", *arguments]
        if work:
            work(rank)
        else:
            main()

    folder.mkdir()
    processes: list[BaseProcess] = [
        multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    return Together(processes, folder)


def run_together(count: int, folder: Path, *arguments: str) -> Ended:
    return start_together(count, folder, *arguments).end()

"""Several processes that do one piece of work: which of them this one is, and what they tell each other.

A launcher (``accelerate launch``, ``torchrun``) starts the same command several times and says so in the
environment. The first process decides, writes and shows; the others compute. Imports torch only where there are others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from cictl.errors import CictlError, ProcessLost, UsageError, means_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_PATIENCE_MINUTES = 30  # with a process that is there and silent; one that is gone is known at once, by its closed connection


class Processes:
    """One process alone: there is nobody to wait for.

    Attributes:
        rank: which one this is, from 0.
        count: how many there are.
        local_rank: which one this is of those on its machine, from 0.
    """

    rank = 0
    count = 1
    local_rank = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and shows."""
        return self.rank == 0

    def share(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns, or raises, in the first process, where alone it is called."""
        return decide()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """``tensor`` of every process, in the order of their ranks; all of one shape."""
        return [tensor]

    def collect(self, value: T) -> list[T]:
        """``value`` of every process, in the order of their ranks, in the first one; nothing in the others."""
        return [value]

    def largest(self, number: int) -> int:
        """The largest ``number`` that any process has."""
        return number

    def wait(self) -> None:
        """Go on when all have come here."""


ALONE = Processes()


class _Group(Processes):
    """Processes that talk through torch.distributed: by gloo for what is on the CPU, by NCCL for what is on a GPU."""

    def __init__(self, rank: int, count: int, local_rank: int) -> None:
        self.rank = rank
        self.count = count
        self.local_rank = local_rank

    def share(self, decide: Callable[[], T]) -> T:
        import torch
        from torch import distributed

        said: list[T | CictlError | None] = [None]
        if self.first:
            try:
                said = [decide()]
            except CictlError as error:
                said = [error]
        with self._talking():
            distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        if isinstance(said[0], CictlError):
            raise said[0]
        return said[0]  # type: ignore[return-value]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        import torch
        from torch import distributed

        tensors = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(self.count)]
        with self._talking():
            distributed.all_gather(tensors, tensor.contiguous())
        return tensors

    def collect(self, value: T) -> list[T]:
        from torch import distributed

        values: list[T] | None = [value] * self.count if self.first else None
        with self._talking():
            distributed.gather_object(value, values, dst=0)
        return values or []

    def largest(self, number: int) -> int:
        import torch
        from torch import distributed

        tensor = torch.tensor(number)
        with self._talking():
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return int(tensor)

    def wait(self) -> None:
        self.largest(0)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # it names a socket, and no process
            if means_out_of_memory(error):
                raise
            silent = "timed out" in str(error).lower()
            what = f"has not answered for {_PATIENCE_MINUTES} minutes" if silent else "has ended"
            raise ProcessLost(
                f"another of the {self.count} processes {what}, and this one (rank {self.rank}) cannot go on without it",
                "its own message says why, if it could leave one; then run the same command again",
                slug="process-lost",
            ) from error


def launched() -> tuple[int, int]:
    """This process's rank, and how many were started, as a launcher says; 0 and 1 without one.

    Raises:
        UsageError: the environment says that there are several, and not which one this is.
    """
    count, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if not (count.isdecimal() and rank.isdecimal() and int(rank) < max(int(count), 1)):
        raise UsageError(
            f"the environment says that this is process {rank} of {count} (RANK, WORLD_SIZE), which cannot be",
            "start several processes with: accelerate launch -m cictl invert; for one, unset both",
            slug="processes-contradictory",
        )
    return int(rank), max(int(count), 1)


@cache
def join() -> Processes:
    """The processes that a launcher started together with this one, once all are there; ALONE without a launcher.

    Raises:
        UsageError: they do not find each other.
    """
    rank, count = launched()
    if count == 1:
        return ALONE
    import atexit
    import socket
    from datetime import timedelta

    import torch
    from torch import distributed

    # On Windows there is no NCCL; gloo then brings the GPU's tensors to the CPU and back.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    machines = [""] * count
    try:
        distributed.init_process_group(backend, rank=rank, world_size=count, timeout=timedelta(minutes=_PATIENCE_MINUTES))
        distributed.all_gather_object(machines, socket.gethostname())
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the {count} processes do not find each other: {error}",
            "start them together with: accelerate launch -m cictl invert (it sets MASTER_ADDR and MASTER_PORT)",
            slug="processes-not-found",
        ) from None
    atexit.register(distributed.destroy_process_group)
    said = os.environ.get("LOCAL_RANK", "")
    return _Group(rank, count, int(said) if said.isdecimal() else machines[:rank].count(machines[rank]))


def leave_at_once(code: int) -> None:
    """End this process with ``code``, if it has joined others, without what is usually done at the end.

    There NCCL waits until all have done what is under way: this process would wait for the others, and they for it.
    """
    if join.cache_info().currsize and join() is not ALONE:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # what reads it has gone, or it is closed
                stream.flush()
        os._exit(code)

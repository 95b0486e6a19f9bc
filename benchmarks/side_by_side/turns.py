"""The other side of the gates: starts the programs, lets them work in turns, and collects what they tell."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_LAST_LINES = 15


@dataclass(frozen=True)
class Program:
    """Something to be timed.

    Attributes:
        name: in tables.
        run: called in a process of its own with a :class:`Gate` and ``arguments``; must be importable.
        arguments: picklable.
        dtype: fp32 or bf16: of its large products.
    """

    name: str
    run: Callable[..., None]
    arguments: Mapping[str, Any]
    dtype: str


@dataclass
class Timed:
    """What was seen of a program.

    Attributes:
        seconds, loader_seconds: of a step (or picture), one number a block.
        first_seconds: from the start of the process to the end of the first block.
        flops, calls, launches: of a step; floating-point operations, operations of the library, launches of GPU kernels.
        product_flops: floating-point operations a second, in a product of large square matrices.
        peak: bytes, while the blocks were timed; ``peak_before`` until then, loading included.
        facts: what the program itself found out, by name.
        error: the end of what it printed, if it ended by itself; what was timed until then is there all the same.
    """

    name: str
    dtype: str
    seconds: list[float] = field(default_factory=list)
    loader_seconds: list[float] = field(default_factory=list)
    first_seconds: float = 0.0
    flops: float | None = None
    calls: float | None = None
    launches: float | None = None
    product_flops: float = 0.0
    peak: int | None = None
    peak_reserved: int | None = None
    peak_before: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def summary(self) -> dict[str, Any]:
        """The figures of the table, in milliseconds, bytes and shares; None for what is not known, or not yet."""
        known = {"name": self.name, "dtype": self.dtype, **self.facts}
        if self.error or not self.seconds:
            known["error"] = self.error or "nothing was timed"
        if not self.seconds:
            return known
        median = statistics.median(self.seconds)
        return {
            **known,
            "blocks": len(self.seconds),
            "median_ms": median * 1e3,
            "p10_ms": quantile(self.seconds, 0.1) * 1e3,
            "p90_ms": quantile(self.seconds, 0.9) * 1e3,
            "loader_ms": statistics.median(self.loader_seconds) * 1e3,
            "first_block_after_s": self.first_seconds,
            "flops": self.flops,
            "mfu": None if self.flops is None else self.flops / median / self.product_flops,
            "product_flops_per_second": self.product_flops,
            "calls": self.calls,
            "launches": self.launches,
            "peak_bytes": self.peak,
            "peak_reserved_bytes": self.peak_reserved,
            "peak_before_bytes": self.peak_before,
            "all_ms": [second * 1e3 for second in self.seconds],
        }


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lies, between two of them if need be (type 7 of Hyndman & Fan 1996)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def paired_ratio(ours: Timed, other: Timed) -> float | None:
    """How many times longer ``other`` takes than ``ours``: the median over the rounds, in each of which both had a turn."""
    pairs = [theirs / own for own, theirs in zip(ours.seconds, other.seconds, strict=False)]
    return statistics.median(pairs) if pairs else None


def take_turns(
    programs: Sequence[Program],
    *,
    device: str,
    rounds: int,
    block: int,
    limit: float,
    logs: Path,
    patience: float | None = None,
    count: bool = True,
    tell: Callable[[list[Timed]], None] = lambda timed: None,
) -> list[Timed]:
    """Start all ``programs``, and time a block of each in every round; the order turns around from round to round.

    Before that each has a block to warm up in, two on a GPU. Operations are counted in a block after all that is timed, since a
    profiler slows down what comes after it.

    Args:
        rounds: at most so many.
        block: how many steps (or pictures) a program does in a block.
        limit: seconds after which no further round is begun.
        logs: folder of what the programs print.
        patience: seconds after which a program that has not begun, or not ended a block, is ended; None is any time.
        count: whether operations and launches are counted.
        tell: called with what is known so far, after every round and at the end.
    """
    logs.mkdir(parents=True, exist_ok=True)
    timed = [Timed(program.name, program.dtype) for program in programs]
    with _started(programs, device, logs, patience) as running:
        runners = list(zip(running, timed, strict=True))
        for runner, result in runners:
            _attempt(_await_first_block, runner, result)
        for runner, result in runners:  # when none is busy any more: the product would share the GPU
            _attempt(_warm_up, runner, result, device)
        began = time.monotonic()
        for number in range(rounds):
            if number and time.monotonic() - began > limit:
                break
            for runner, result in runners if number % 2 == 0 else runners[::-1]:
                _attempt(_time, runner, result, block)
            tell(timed)
        for runner, result in runners:
            _attempt(_look_at_memory, runner, result)
        tell(timed)
        for runner, result in runners if count else []:
            _attempt(_count, runner, result, device, block)
            tell(timed)
    return timed


class _Silent(Exception):
    """A program has not answered in time."""


@dataclass(frozen=True)
class _Runner:
    process: BaseProcess
    connection: Connection
    log: Path
    patience: float | None

    def ask(self, word: str) -> dict[str, Any]:
        self.connection.send(word)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        if not self.connection.poll(self.patience):
            raise _Silent
        answer: dict[str, Any] = self.connection.recv()
        return answer


@contextmanager
def _started(programs: Sequence[Program], device: str, logs: Path, patience: float | None) -> Iterator[list[_Runner]]:
    context, usual = multiprocessing.get_context("spawn"), multiprocessing.get_start_method()
    running = []
    with _environment(device):
        for index, program in enumerate(programs):
            ours, theirs = context.Pipe()
            log = logs / f"{index}-{program.name.replace(' ', '-').replace(',', '')}.log"
            process = context.Process(target=_child, args=(theirs, program, device, time.monotonic(), log, usual))
            process.start()
            theirs.close()
            running.append(_Runner(process, ours, log, patience))
    try:
        yield running
    finally:
        for runner in running:
            with suppress(OSError):  # it has ended already
                runner.connection.send("end")
            runner.process.join(60)
            if runner.process.is_alive():
                runner.process.kill()


def _child(connection: Connection, program: Program, device: str, started: float, log: Path, start_method: str) -> None:
    """The process of ``program``; it starts its own processes (of a data loader) as the system usually does."""
    multiprocessing.set_start_method(start_method, force=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    import torch

    from benchmarks.side_by_side.gate import Ended, Gate

    if device == "cpu":
        torch.set_num_threads(1)
    try:
        program.run(Gate(connection, device, program.dtype, started), **program.arguments)
    except Ended:
        os._exit(0)  # nothing of what a program does when it ends is wanted, such as saving gigabytes


@contextmanager
def _environment(device: str) -> Iterator[None]:
    """That of the programs: no network, and on a CPU one thread and no GPU."""
    before = dict(os.environ)
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    if device == "cpu":
        os.environ.update({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _attempt(work: Callable[..., None], runner: _Runner, result: Timed, *values: Any) -> None:
    """Do ``work`` with a program that is still there; if it ends, the others go on without it."""
    if result.error:
        return
    try:
        work(runner, result, *values)
    except _Silent:
        runner.process.kill()
        result.error = f"not done within {runner.patience:g} s"
        print(f"{result.name} was ended, not done within {runner.patience:g} s, see {runner.log}", file=sys.stderr, flush=True)
    except (EOFError, OSError):
        runner.process.join(60)
        lines = runner.log.read_text("utf-8", "replace").splitlines() if runner.log.is_file() else []
        result.error = "\n".join(lines[-_LAST_LINES:]) or f"ended with {runner.process.exitcode}"
        print(f"{result.name} ended by itself, see {runner.log}", file=sys.stderr, flush=True)


def _await_first_block(runner: _Runner, result: Timed) -> None:
    first = runner.answer()
    result.first_seconds, result.facts = first["first_seconds"], first["facts"]


def _warm_up(runner: _Runner, result: Timed, device: str) -> None:
    result.product_flops = runner.ask("product")["product_flops"]
    if device == "cuda":
        runner.ask("time")
    result.peak_before = runner.ask("memory")["peak"]


def _time(runner: _Runner, result: Timed, block: int) -> None:
    figures = runner.ask("time")
    result.seconds.append(figures["seconds"] / block)
    result.loader_seconds.append(figures["loader_seconds"] / block)
    shown = result.seconds[-1] * 1e3
    print(f"{result.name}: {shown:.1f} ms", file=sys.stderr, flush=True)


def _look_at_memory(runner: _Runner, result: Timed) -> None:
    memory = runner.ask("memory")
    result.peak, result.peak_reserved = memory["peak"], memory.get("peak_reserved")


def _count(runner: _Runner, result: Timed, device: str, block: int) -> None:
    if device == "cuda":
        result.launches = runner.ask("launches")["launches"] / block
    counted = runner.ask("count")
    result.flops, result.calls = counted["flops"] / block, counted["calls"] / block

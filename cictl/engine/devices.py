"""Which device the work runs on: found, and tried before anything is loaded."""

from __future__ import annotations

import os
import shutil

import torch

from cictl.errors import UsageError, means_out_of_memory
from cictl.processes import ALONE, Processes


def choose_device(asked: str, processes: Processes = ALONE) -> torch.device:
    """The device that is ``asked`` for: auto, cpu, cuda, cuda:N or mps. On CUDA it has a number, and is the current one.

    Accelerate chooses one for the whole life of a process; here each command, and each part of a comparison, may have its own.

    Raises:
        UsageError: it is not there, cannot be used, or is not enough for several processes.
    """
    device = _found() if asked == "auto" else torch.device(asked)
    if device.type == "cpu":
        return device
    _require(device)
    if device.type == "cuda":
        device = _numbered(device, processes)
        torch.cuda.set_device(device)  # pinned memory, and what is asked without a device, belong to the current one
    _try(device)
    return device


def overlooked_gpu() -> str:
    """What is to be said where there is a driver for NVIDIA's GPUs, and torch uses none, though nobody has hidden them."""
    if torch.cuda.is_available() or "CUDA_VISIBLE_DEVICES" in os.environ or not shutil.which("nvidia-smi"):
        return ""
    return f"this machine seems to have a GPU, and the CPU is used: {_why_none()}"


def _found() -> torch.device:
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):  # accelerate launch --cpu
        return torch.device("cpu")
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _require(device: torch.device) -> None:
    available, why = True, ""
    if device.type == "cuda":
        available, why = torch.cuda.is_available(), f": {_why_none()}"
        if available and (count := torch.cuda.device_count()) <= (device.index or 0):
            available, why = False, f": there is cuda:0{f' to cuda:{count - 1}' if count > 1 else ' alone'}"
    elif device.type == "mps":
        available = torch.backends.mps.is_available()
    if not available:
        raise UsageError(
            f"model.device is {device}, which this machine does not have{why}", "set model.device to auto", slug="device-missing"
        )


def _why_none() -> str:
    """Why torch finds no GPU of NVIDIA's."""
    if not torch.backends.cuda.is_built():
        return "the installed torch is one without CUDA (https://pytorch.org/get-started has the others)"
    return "torch finds no GPU, or a driver that is too old for it (nvidia-smi shows both)"


def _numbered(device: torch.device, processes: Processes) -> torch.device:
    """One of the GPUs: of several processes on one machine each takes its own."""
    if processes.count == 1:
        return torch.device("cuda", device.index or 0)
    if device.index is not None:
        raise UsageError(
            f"model.device is {device} for {processes.count} processes",
            "set model.device to auto",
            slug="device-for-several-processes",
        )
    own, count = processes.local_rank, torch.cuda.device_count()
    if own < count:
        return torch.device("cuda", own)
    if _is_given_one_alone(processes, count):
        return torch.device("cuda", 0)
    seen = "; or let Slurm show each process all of them: --gpus-per-node" if "SLURM_JOB_ID" in os.environ else ""
    raise UsageError(
        f"there are more processes on this machine than GPUs, of which it has {count}",
        f"start {count} (accelerate launch --num_processes {count}){seen}; accumulation in ci.yaml computes a batch in parts",
        slug="processes-exceed-gpus",
    )


def _is_given_one_alone(processes: Processes, count: int) -> bool:
    """Whether this process is a task of Slurm's, each of which has a GPU and sees no other (``srun --gpus-per-task=1``).

    What CUDA_VISIBLE_DEVICES says is no sign: it may be 0 in every task, or in all processes that share one GPU. Where another
    launcher has started the processes in a task, their numbers are not Slurm's.
    """
    said = [os.environ.get(f"SLURM_{name}", "") for name in ("GPUS_PER_TASK", "PROCID", "STEP_NUM_TASKS")]
    return count == 1 and said[0].rpartition(":")[2] == "1" and said[1:] == [str(processes.rank), str(processes.count)]


def _try(device: torch.device) -> None:
    """Compute something on it: a driver may be there that has no kernels for it, or a GPU that another program holds alone."""
    try:
        float(torch.ones(1, device=device) + 1)
    except RuntimeError as error:
        if means_out_of_memory(error):
            raise
        first_line = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{device} is there and cannot be used: {first_line}",
            "see to it, or use the CPU: --set model.device=cpu",
            slug="device-unusable",
        ) from None

"""Programs that stand behind a gate in tests: importable, since each runs in a process of its own."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks.side_by_side.gate import Gate

# What both of the peers' scripts do in a step, as far as the hooks can see.
PEER = """
import argparse, os
from accelerate import Accelerator
from torch.utils.data import DataLoader
from torchvision import transforms
import torch
parser = argparse.ArgumentParser()
parser.add_argument("--train_batch_size", type=int)
given, _ = parser.parse_known_args()
accelerator = Accelerator()
flip = transforms.RandomHorizontalFlip(p=0.5)
weight = torch.nn.Parameter(torch.ones(64, 64))
optimizer = torch.optim.AdamW([weight])
assert __name__ == "__main__"
for batch in DataLoader(torch.randn(400, 64), batch_size=given.train_batch_size):
    (batch @ weight).square().mean().backward()
    optimizer.step()
    accelerator.log({"loss": 0.0})
"""


def multiplies(gate: Gate, diary: Path, name: str, side: int, blocks: int) -> None:
    """A product a block, noted in ``diary``; ends by itself after ``blocks``."""
    matrix = torch.randn(side, side)
    for _ in range(blocks):
        torch.mm(matrix, matrix)
        with open(diary, "a") as file:
            file.write(name)
        gate.arrive()
    raise SystemError("there is no more work")


def hangs(gate: Gate, blocks: int) -> None:
    """Ends so many blocks, then never another."""
    gate.facts = {"blocks it had": blocks}
    for _ in range(blocks):
        gate.arrive()
    time.sleep(600)

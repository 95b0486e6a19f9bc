"""Who draws, with which settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.generate.programs import run_cictl, run_diffusers
from benchmarks.side_by_side.folders import Folders
from benchmarks.side_by_side.turns import Program

GUIDANCE = 5.0
_MORE = 4  # batches that are not timed: to warm up, and to count operations


def ours(
    folders: Folders,
    work: Path,
    *,
    device: str,
    resolution: int,
    batch: int,
    batches: int,
    steps: int,
    settings: Mapping[str, Any],
) -> Program:
    """``cictl generate --stage base`` in a new workspace in ``work``.

    Args:
        batches: that are timed, at most.
        settings: of ci.yaml, by dotted key.
    """
    from cictl.workflow import init

    workspace, out = work / "workspace-generate", work / "pictures" / "cictl"
    for folder in (workspace, out):
        shutil.rmtree(folder, ignore_errors=True)
    init.run(workspace, model=str(folders.base), images=sorted(folders.photographs.iterdir()), name="teapot")
    given = {
        "model.device": device, "data.resolution": resolution, "generate.steps": steps, "generate.guidance": GUIDANCE,
        "generate.batch_size": batch, "generate.count": batch * (batches + _MORE), **settings,
    }  # fmt: skip
    arguments = {"workspace": workspace, "out": out, "batch": batch, "settings": given}
    return Program("cictl generate", run_cictl, arguments, "bf16" if device == "cuda" else "fp32")


def peers(folders: Folders, work: Path, *, device: str, resolution: int, batch: int, steps: int) -> list[Program]:
    """diffusers' pipeline as documented, in fp32, and last at its best: on a GPU in bf16."""
    precisions = {"fp32": None, "bf16": "bfloat16"} if device == "cuda" else {"fp32": None}
    programs = []
    for name, dtype in precisions.items():
        arguments = {
            "base": folders.base, "out": work / "pictures" / name, "batch": batch, "resolution": resolution, "steps": steps,
            "guidance": GUIDANCE, "dtype": dtype,
        }  # fmt: skip
        programs.append(Program(f"diffusers pipeline, {name}", run_diffusers, arguments, name))
    return programs

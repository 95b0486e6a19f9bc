"""Whether the disks have room for what is still to be downloaded and to be written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from cictl.models.downloads import Download
from cictl.models.hub import ROOM_TO_SPARE, cache_folder
from cictl.sizes import size_in_words
from cictl.workflow.findings import CheckReport, Estimate
from cictl.workspace import Workspace

_TOKENS = 3 << 20  # new rows of the vocabulary, manifests and logs of both stages, which the estimates leave out


def look_at_disks(report: CheckReport, workspace: Workspace, downloads: Sequence[Download]) -> None:
    """Hold what the workspace and the hub's cache will need against what is free, together where they share a disk."""
    writes = {"checkpoints and snapshots": _to_write(workspace, report.estimates)} if report.estimates else {}
    coming = {"the download": sum(one.bytes for one in downloads) + ROOM_TO_SPARE} if downloads else {}
    cache = _existing(cache_folder())
    if _disk_of(cache) == _disk_of(workspace.root):
        writes, coming = writes | coming, {}
    _look_at(report, workspace.root, "", writes)
    if coming:
        _look_at(report, cache, f" at {cache}", coming)


def _look_at(report: CheckReport, folder: Path, where: str, needs: Mapping[str, int]) -> None:
    free, needed = shutil.disk_usage(folder).free, sum(needs.values())
    parts = " and ".join(f"{size_in_words(size)} for {what}" for what, size in needs.items())
    if not needs:
        report.add("ok", "disk", f"{size_in_words(free)} free{where}")
    elif needed <= free:
        report.add("ok", "disk", f"{size_in_words(free)} free{where}; needed: about {parts}")
    else:
        other = ", or set HF_HOME to a folder on another disk" if "the download" in needs else ""
        report.add("warning", "disk", f"{size_in_words(free)} free{where}, and needed: about {parts}", f"make room there{other}")


def _to_write(workspace: Workspace, estimates: Sequence[Estimate]) -> int:
    """Bytes that both stages will still take: of each two checkpoints and all snapshots, and one that is being written."""
    ends = 0
    for estimate in estimates:
        folder = workspace.stage_folder(estimate.stage)
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        ends += max(0, 2 * estimate.checkpoint + estimate.snapshots - there)
    return _TOKENS + ends + max(estimate.checkpoint for estimate in estimates)


def _disk_of(folder: Path) -> int:
    return folder.stat().st_dev


def _existing(folder: Path) -> Path:
    """``folder``, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())

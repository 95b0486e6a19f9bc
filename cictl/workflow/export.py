"""`cictl export`: files that other programs load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cictl
from cictl.errors import UsageError
from cictl.events import FileSaved, Observer, PhaseStarted, Warned
from cictl.files import sha256_bytes
from cictl.workflow.concept import find_concept
from cictl.workflow.pictures import find_base_of
from cictl.workflow.stage import configure
from cictl.workspace import Workspace

FORMATS = ("safetensors",)


@dataclass(frozen=True)
class ExportOutcome:
    """The files, whether all of them were there already, and what to type in which program."""

    files: list[dict[str, Any]]
    already_done: bool
    usage: dict[str, str]


def run(
    workspace: Workspace,
    observe: Observer,
    *,
    format_name: str = "safetensors",
    out: Path | None = None,
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> ExportOutcome:
    """Export the concept; from stage 1 alone, the embedding alone.

    Raises:
        UsageError: there is no such format.
        StateError: nothing has been trained yet, or a file holds something else.
    """
    if format_name not in FORMATS:
        raise UsageError(f"there is no format {format_name!r}", f"there is: {', '.join(FORMATS)}")
    config = configure(workspace, overrides or {})
    concept = find_concept(workspace, None, observe)
    if concept.source == "invert":
        observe(Warned("stage 2 has not been run, so there are no K/V deltas: only the embedding is exported"))
    base = find_base_of(workspace, config, concept, observe)
    observe(PhaseStarted("reading the tensors"))

    from cictl.exporters import safetensors_files as exporter
    from cictl.models.stable_diffusion import base_key_values

    last = concept.checkpoints[-1]
    source = exporter.Exportable(
        name=concept.name,
        embedding=concept.tokens().concept.detach(),
        key_values=concept.key_values(),
        base_key_values=base_key_values(base) if concept.source == "finetune" else {},
        facts={
            "base_model": "local" if Path(config.model.id).is_absolute() else config.model.id,
            "base_model_identity": base.identity,
            "trigger": concept.name,
            "stage": concept.source,
            "step": last.step,
            "config_sha256": sha256_bytes(repr(sorted(last.manifest["fingerprint"]["fields"].items())).encode()),
            "cictl": cictl.__version__,
        },
    )
    folder = out or workspace.outputs / "export"
    written = exporter.export(source, folder, force=force)
    for file in written:
        if not file.kept:
            observe(FileSaved(file.path, file.size, verified=True))
    return ExportOutcome(
        files=[{"path": workspace.shown(file.path), "bytes": file.size, "kept": file.kept} for file in written],
        already_done=all(file.kept for file in written),
        usage=exporter.usage(source),
    )

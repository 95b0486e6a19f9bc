"""What a training writes down as it goes: checkpoints to go on from, snapshots that are kept, and the circumstances of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cictl.config import Config, Stage, settings_of
from cictl.events import CheckpointSaved, Observer, Warned
from cictl.records import Checkpoint
from cictl.workflow.beginning import Beginning
from cictl.workflow.class_pictures import SEEN
from cictl.workflow.divergence import Divergence, all_finite
from cictl.workflow.provenance import circumstances
from cictl.workflow.stage import Fingerprint, fingerprint
from cictl.workflow.stopping import Watch, fixed_batch_loss

if TYPE_CHECKING:
    from torch.optim import AdamW

    from cictl.engine.runtime import Runtime
    from cictl.workflow.prepared import Prepared, StageMethod


@dataclass(frozen=True)
class Saver:
    """Writes checkpoints of a run, in the first of its processes alone, and puts one back.

    All processes have trained the same, so that each knows of a result that is no number, and none waits for another.
    """

    folder: Path
    method: StageMethod
    optimizer: AdamW
    runtime: Runtime
    facts: Mapping[str, Any]
    milestones: Collection[int]
    watch: Watch
    divergence: Divergence
    observe: Observer

    def __call__(self, done: int) -> None:
        self.divergence.require_finite(done, self.method.trainable().values())
        if self.runtime.processes.first:
            self.observe(CheckpointSaved(done, self.write(done, self.folder)))

    def write(self, done: int, folder: Path) -> Path:
        """A checkpoint in ``folder``, which nobody is told of."""
        from cictl.engine.checkpoint import save_checkpoint, training_state

        state = training_state(self.method.trainable(), self.optimizer)
        complete = done >= self.facts["steps"] or self.watch.converged
        facts = {**self.facts, "scaler": self.runtime.scaler_state(), "complete": complete, **self.watch.record()}
        return save_checkpoint(folder, done, self.method.result(), state, facts)

    def keep_if_due(self, done: int) -> None:
        """Write a snapshot, if there is to be one of this step; of what is no number there is none, and a loss will say so."""
        from cictl.engine.checkpoint import save_snapshot

        if self.runtime.processes.first and done in self.milestones and all_finite(self.method.trainable().values()):
            save_snapshot(self.folder, done, self.method.result(), self.facts)

    def restore(self, checkpoint: Checkpoint) -> None:
        from cictl.engine.checkpoint import read_training_state, restore_training_state

        trainable = self.method.trainable()
        restore_training_state(read_training_state(checkpoint, trainable), trainable, self.optimizer)
        self.runtime.restore_scaler(checkpoint.manifest.get("scaler", {}))
        self.watch.restore(checkpoint.manifest)


def make_saver(start: Beginning, prepared: Prepared, runtime: Runtime, observe: Observer) -> Saver:
    """The saver of a run, with a new optimizer, and evaluations that begin anew."""
    from cictl.engine.training import adamw

    settings, processes = start.settings, runtime.processes
    evaluate = fixed_batch_loss(prepared, settings, start.config.seed, start.stage, settings.accumulation * processes.count)
    return Saver(
        folder=start.workspace.stage_folder(start.stage),
        method=prepared.method,
        optimizer=adamw(
            prepared.method, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, rates=prepared.rates
        ),
        runtime=runtime,
        facts=_facts(start, prepared, runtime),
        milestones=milestones_of(start.config, start.stage),
        watch=Watch(settings, lambda: processes.share(evaluate), observe),
        divergence=Divergence(start.stage, settings.learning_rate, runtime),
        observe=observe,
    )


def _facts(start: Beginning, prepared: Prepared, runtime: Runtime) -> dict[str, Any]:
    """What the manifest says beside the tensors."""
    # Again: a download may have given the model its identity.
    now: Fingerprint = fingerprint(start.workspace, start.config, start.stage, start.pins)
    settings = start.settings
    return {
        "stage": start.stage,
        "steps": settings.steps,
        "concept": start.config.concept.name,
        "fingerprint": dict(now),
        "overrides": dict(start.overrides),
        "config": start.config.model_dump(),
        "circumstances": {
            **circumstances(runtime),
            "parts of a batch": settings.accumulation * runtime.processes.count,
            **({"cuda_graph": runtime.records, "fused": runtime.fused} if runtime.device.type == "cuda" else {}),
        },
        SEEN: list(prepared.class_pictures.keys) if prepared.class_pictures else [],
    }


def warn_of_other_circumstances(checkpoint: Checkpoint, facts: Mapping[str, Any], observe: Observer) -> None:
    """Say which libraries, device or split of a batch differ from those of ``checkpoint``: nothing that a fingerprint holds."""
    before = checkpoint.manifest.get("circumstances", {})
    changed = [
        f"{name} {before[name]} -> {value}" for name, value in facts["circumstances"].items() if before.get(name, value) != value
    ]
    if changed:
        observe(Warned(f"other circumstances than before, so the last bits may differ: {', '.join(changed)}"))


def milestones_of(config: Config, stage: Stage) -> set[int]:
    """The steps whose results are kept, at equal distances; the last one is not among them."""
    steps, parts = settings_of(config, stage).steps, config.checkpoint.snapshots + 1
    return {round(steps * part / parts) for part in range(1, parts)} - {0, steps}

"""Where figures come from: the trainings behind them, libraries and machine; and in what compared trainings differ."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from cictl.workflow.concept import Concept

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime

_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors")
_SHARED = ("seed", "data", "model", "identity")  # groups of settings that no method has for itself
_SAME_MACHINE = ("cictl", *_LIBRARIES, "device", "dtype")


@dataclass(frozen=True)
class Trained:
    """A training that figures come from, as its checkpoint has it.

    Attributes:
        stage: invert, finetune, or another method.
        steps: that were done.
        settings: that shaped it, and the commits of its models, by dotted key.
        photographs: the sha256 of each, by its name.
        circumstances: libraries, device and precision.
    """

    stage: str
    steps: int
    settings: dict[str, Any]
    photographs: dict[str, str]
    circumstances: dict[str, Any]


def trained(concept: Concept) -> list[Trained]:
    """The trainings of a concept in their order; none of the base."""
    return [_trained(checkpoint.manifest, checkpoint.step) for checkpoint in concept.checkpoints]


def _trained(manifest: Mapping[str, Any], steps: int) -> Trained:
    seen = manifest["fingerprint"]["photographs"]
    return Trained(
        stage=manifest["stage"],
        steps=steps,
        settings=dict(manifest["fingerprint"]["fields"]),
        photographs={name: sha256 for sha256, name in sorted(seen.items(), key=lambda item: item[1])},
        circumstances=dict(manifest.get("circumstances", {})),
    )


def unlike(trainings: Iterable[Trained]) -> list[str]:
    """In what trainings differ though no method has it for itself, each as "seed: 0 (invert), 5 (dreambooth)"."""
    facts = {training.stage: _shared(training) for training in trainings}
    found = []
    for key in dict.fromkeys(key for own in facts.values() for key in own):
        stages: dict[str, list[str]] = {}
        for stage, own in facts.items():
            if own.get(key) is not None:  # what an older record does not know, or a training does not read
                stages.setdefault(str(own[key]), []).append(stage)
        if len(stages) > 1:
            found.append(f"{key}: " + ", ".join(f"{value} ({', '.join(some)})" for value, some in stages.items()))
    return found


def _shared(training: Trained) -> dict[str, Any]:
    settings = {key: value for key, value in training.settings.items() if key.partition(".")[0] in _SHARED}
    return settings | {key: training.circumstances.get(key) for key in _SAME_MACHINE}


def circumstances(runtime: Runtime) -> dict[str, Any]:
    """Libraries, device and precision: on others the last bits differ."""
    return {
        "cictl": _version("cictl"),
        **{name: _version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "device": _device_name(runtime),
        "dtype": runtime.dtype_name,
        "threads": _threads(runtime),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _device_name(runtime: Runtime) -> str:
    import torch

    if runtime.device.type == "cuda":
        return torch.cuda.get_device_name(runtime.device)
    return runtime.device.type


def _threads(runtime: Runtime) -> int | None:
    import torch

    return torch.get_num_threads() if runtime.device.type == "cpu" else None

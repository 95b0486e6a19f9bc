"""What exporters get and give: nothing here touches the disk.

An exporter is a function ``build(source, options) -> Built``: the files as tensors or bytes, what to type
afterwards, and what was measured. Writing them is ``writing.py``'s, the same way for all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cictl.errors import ModelAccessError
from cictl.models.locate import Located

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class UnfitError(ModelAccessError):
    """The base model does not have the layout that a format is made for."""


@dataclass(frozen=True, eq=False)  # known by identity, so that what is computed from it can be kept
class Exportable:
    """What an exporter may read: nothing of the auxiliary tokens or pathway is in it.

    Attributes:
        name: the word to type; S* is stored as <name>.
        embedding: vectors of S*, [m, D].
        key_values: tuned W_k, W_v by the base's names; empty before stage 2.
        base_key_values: W0_k, W0_v of the same names.
        base: where the base model lies, for the forms that hold all of it.
        facts: for the metadata; no paths.
    """

    name: str
    embedding: Tensor
    key_values: Mapping[str, Tensor]
    base_key_values: Mapping[str, Tensor]
    base: Located
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        rank: of each LoRA module; None keeps :data:`cictl.exporters.decomposition.KEPT_ENERGY` of each.
        dtype: fp32, fp16 or bf16, of everything but embeddings, which are a few KB.
    """

    rank: int | None = None
    dtype: str = "fp32"


@dataclass(frozen=True)
class Tensors:
    """A safetensors file: tensors by name, texts by key."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


Content = Tensors | bytes | Path
"""What a file is to hold: tensors, bytes, or what another file (of the base model) holds."""


@dataclass(frozen=True)
class Place:
    """Where the files are and how the base model is opened, as a person would type both.

    Attributes:
        folder: of the export.
        base: a Python expression that gives the pipeline of the base model.
        configs: a Python expression that gives its folder or id, which says how a single file is to be read.
    """

    folder: str
    base: str
    configs: str

    @property
    def whole(self) -> str:
        """The folder, as a Python string."""
        return json.dumps(self.folder or ".", ensure_ascii=False)

    def file(self, name: str) -> str:
        """A file of the export, as a Python string."""
        return json.dumps(f"{self.folder}/{name}" if self.folder else name, ensure_ascii=False)


@dataclass(frozen=True)
class Built:
    """An export before it is written.

    Attributes:
        files: contents by path below the export's folder.
        usage: what to type, by program, once the place is known.
        notes: what was measured, a sentence each.
    """

    files: Mapping[str, Content]
    usage: Callable[[Place], dict[str, str]]
    notes: Sequence[str] = field(default=())


def metadata(source: Exportable, **facts: Any) -> dict[str, str]:
    """Where the tensors come from, as the one key ``cictl``."""
    return {"cictl": json.dumps({**source.facts, **facts}, sort_keys=True, ensure_ascii=False)}


def is_for_sd1(source: Exportable) -> bool:
    """Whether the base has the width of Stable Diffusion 1.x, by which the programs that read a file know one, too."""
    return source.embedding.shape[-1] == 768


def model_spec(source: Exportable, kind: str = "") -> dict[str, str]:
    """The keys that Stability AI's ModelSpec 1.0.0 asks for, without any of which a reader takes it that there are none.

    Args:
        kind: /lora for an addition to a model; nothing for a whole one.
    """
    if not is_for_sd1(source):
        return {}
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"stable-diffusion-v1{kind}",
        # As kohya's scripts say it: the names are those of diffusers in a LoRA, and of the LDM code in a checkpoint.
        "modelspec.implementation": "diffusers" if kind else "https://github.com/Stability-AI/generative-models",
        "modelspec.title": source.name,
        "modelspec.trigger_phrase": source.name,
    }


def adapter_metadata(source: Exportable, module: str, **facts: str) -> dict[str, str]:
    """What A1111 and others show of an addition to a model, and what tells them that it is for Stable Diffusion 1.x.

    Args:
        module: of kohya's scripts, that could have trained it.
        facts: more of their keys, without the ss_ in front.
    """
    version = {"ss_base_model_version": "sd_v1-5", "ss_v2": "False"} if is_for_sd1(source) else {}
    own = {f"ss_{key}": value for key, value in facts.items()}
    return {
        **metadata(source), "ss_network_module": module, "ss_output_name": source.name, **own, **version,
        **model_spec(source, "/lora"),
    }  # fmt: skip


def stored(tensors: Mapping[str, Tensor], dtype: str = "fp32") -> dict[str, Tensor]:
    """The floating-point tensors in ``dtype``, but for single numbers such as an alpha; all on the CPU and contiguous."""
    return {
        name: (tensor.to(DTYPES[dtype]) if tensor.is_floating_point() and tensor.dim() else tensor).detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }


def changes(source: Exportable) -> dict[str, Tensor]:
    """W - W0 of each tuned weight by the base's name, in fp32."""
    return {name: weight.float() - source.base_key_values[name].float() for name, weight in source.key_values.items()}


def kohya_name(weight: str) -> str:
    """The module of ``down_blocks.0.[...].to_k.weight`` as kohya and LyCORIS name it: ``lora_unet_down_blocks_0_[...]_to_k``."""
    return f"lora_unet_{weight.removesuffix('.weight').replace('.', '_')}"


def relative_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """||got - wanted|| / ||wanted|| over all weights together, by the Frobenius norm."""
    missed = sum((got[name].double() - tensor.double()).square().sum().item() for name, tensor in wanted.items())
    whole = sum(tensor.double().square().sum().item() for tensor in wanted.values())
    return (missed / whole) ** 0.5 if whole else 0.0


def rounding_note(source: Exportable, weights: Mapping[str, Tensor], dtype: str) -> list[str]:
    """What storing ``weights`` (whole W or W - W0, by the base's names) in ``dtype`` loses of W - W0."""
    if dtype == "fp32":
        return []
    rounded = {name: weights[name].to(DTYPES[dtype]).double() - weights[name].double() for name in source.key_values}
    wanted = changes(source)
    error = relative_error({name: wanted[name].double() + rounded[name] for name in wanted}, wanted)
    return [f"{dtype} loses {percent(error)} of the change of K and V (relative error)"]


def percent(share: float) -> str:
    """A share of 1 with three digits."""
    return f"{100 * share:.3g}%"

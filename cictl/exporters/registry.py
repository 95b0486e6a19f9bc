"""The formats: what `cictl export` offers, lists and documents. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, cast

from cictl.errors import UsageError

if TYPE_CHECKING:
    from cictl.exporters.content import Built, Exportable, Options


@dataclass(frozen=True)
class Format:
    """A form in which a concept leaves cictl.

    Attributes:
        name: what ``--format`` takes, and the folder below outputs/export/.
        holds: what is in it.
        readers: the programs that load it.
        fidelity: exact (in fp32), or approximate.
        size: in Stable Diffusion 1.5, in fp32.
        needs: the stage that must have been run.
        module: of cictl.exporters; its ``build`` makes the files.
    """

    name: str
    holds: str
    readers: str
    fidelity: Literal["exact", "approximate"]
    size: str
    needs: Literal["invert", "finetune"]
    module: str

    def build(self, source: Exportable, options: Options) -> Built:
        """The files of this format, not yet written."""
        return cast("Built", import_module(f"cictl.exporters.{self.module}").build(source, options))


FORMATS = (
    Format(
        "safetensors", "embedding, and the changes of K, V themselves", "ComfyUI, A1111, Forge",
        "exact", "77 MB", "invert", "safetensors_files",
    ),
    Format("embedding", "embedding alone", "ComfyUI, A1111, Forge, diffusers", "exact", "3 KB a vector", "invert", "embedding"),
    Format("diffusers-embedding", "embedding alone", "diffusers", "exact", "3 KB a vector", "invert", "diffusers_embedding"),
    Format(
        "lora", "embedding, and a LoRA of the changes of K, V", "ComfyUI, A1111, Forge, diffusers",
        "approximate", "0.2 MB times the rank", "finetune", "lora",
    ),
    Format(
        "diffusers-lora", "embedding, and a LoRA of the changes of K, V", "diffusers (PEFT)",
        "approximate", "0.2 MB times the rank", "finetune", "diffusers_lora",
    ),
    Format(
        "bundle", "a LoRA of the changes of K, V with the embedding in it", "A1111",
        "approximate", "0.2 MB times the rank", "finetune", "bundle",
    ),
    Format(
        "lycoris", "embedding, and the changes of K, V themselves", "ComfyUI, A1111, Forge",
        "exact", "77 MB", "finetune", "lycoris",
    ),
    Format("custom-diffusion", "embedding, and the tuned K, V", "diffusers", "exact", "77 MB", "finetune", "custom_diffusion"),
    Format("pipeline", "the whole tuned model, with the token in it", "diffusers", "exact", "4.3 GB", "finetune", "pipeline"),
    Format(
        "single-file", "the whole tuned model, and the embedding beside it", "ComfyUI, A1111, Forge, diffusers",
        "exact", "4.3 GB", "finetune", "single_file",
    ),
)  # fmt: skip
DEFAULT = FORMATS[0].name


def find_formats(names: Sequence[str]) -> list[Format]:
    """The formats of these names, each once, in the order of :data:`FORMATS`.

    Raises:
        UsageError: there is no such format.
    """
    known = [one.name for one in FORMATS]
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no format {name!r}",
                f"there is: {', '.join(known)}; cictl export --list says more",
                slug="format-unknown",
            )
    return [one for one in FORMATS if one.name in names]

"""What is asked of the hub: a model, for a key of ci.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """A model that is asked for.

    Attributes:
        id: as ci.yaml names it.
        revision: a branch, a tag or a commit.
        files: which of its files: names, and patterns with *.
        key: of ci.yaml, that holds the id; ``revision_key`` that of the revision.
    """

    id: str
    revision: str
    files: tuple[str, ...]
    key: str
    revision_key: str

    @property
    def kind(self) -> str:
        """What is asked for, such as "a whole CLIP model"."""
        return _KINDS.get(self.key.rpartition(".")[2], _KINDS["id"])[0]

    @property
    def example(self) -> str:
        """The id of one."""
        return _KINDS.get(self.key.rpartition(".")[2], _KINDS["id"])[1]

    @property
    def choices(self) -> str:
        """What the key may hold."""
        if self.key == "model.id":
            return "a folder in diffusers layout, a .safetensors file, an id on the hub, or toybox"
        return f"a folder that holds {self.kind}, or an id on the hub such as {self.example}"

    @property
    def without_it(self) -> str:
        """What can be done where it cannot be had."""
        folder = f"or set {self.key} to a folder that holds {self.kind}"
        if self.key.startswith("evaluate."):
            return f"{folder}, or to null to go without it"
        return f"{folder}\ncictl demo needs no hub: it shows every step on the toybox, a small model that ships with cictl"


_KINDS = {
    "id": ("a model in diffusers layout", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "clip": ("a whole CLIP model", "openai/clip-vit-large-patch14"),
    "dinov2": ("a DINOv2 model", "facebook/dinov2-base"),
}

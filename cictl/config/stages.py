"""What can be trained: the two stages of Contrastive Inversion, and the methods that it is compared with."""

from __future__ import annotations

from typing import Literal, get_args

Method = Literal["textual-inversion", "dreambooth", "custom-diffusion", "disenbooth"]
Stage = Literal["invert", "finetune"] | Method

STAGES: tuple[Stage, ...] = ("invert", "finetune")
"""Those of Contrastive Inversion, in their order."""
METHODS: tuple[Method, ...] = get_args(Method)
NEED_A_NOUN: tuple[Method, ...] = ("dreambooth", "custom-diffusion", "disenbooth")
"""The methods that must be told what S* is, in a word."""
BEFORE: dict[Stage, tuple[Stage, ...]] = {"invert": (), "finetune": ("invert",), **dict.fromkeys(METHODS, ())}
"""The stages whose results a stage is trained on."""


def group_of(stage: Stage) -> str:
    """The group of ci.yaml that holds the settings of a stage."""
    return stage.replace("-", "_")


def command_of(stage: Stage) -> str:
    """What to type to train a stage."""
    return f"cictl baseline {stage}" if stage in METHODS else f"cictl {stage}"

"""The two stages of Contrastive Inversion, as groups of ci.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import field_validator

from cictl.config.fields import (
    ACCUMULATION,
    NOT_STATED,
    STOP_EVERY,
    STOP_RATIO,
    STOP_WINDOW,
    TIMESTEPS,
    AuxiliaryPrompt,
    ConceptPrompts,
    Group,
    Parts,
    Texts,
    Timesteps,
    batch_size_setting,
    holding,
    learning_rate_setting,
    setting,
    steps_setting,
    weight_decay_setting,
)
from cictl.placeholders import AUXILIARY, CONCEPT


class InvertConfig(Group):
    """stage 1, Contrastive Inversion: trains the tokens S* and A_i*"""

    steps: int = steps_setting(2000, "2000")
    learning_rate: float = learning_rate_setting(5e-4, "5e-4")
    weight_decay: float = weight_decay_setting("0.01")
    batch_size: int = batch_size_setting(4, "4")
    accumulation: Parts = ACCUMULATION
    timesteps: Timesteps = setting("uniform", TIMESTEPS, paper=NOT_STATED)
    auxiliary_vectors: int = setting(
        4,
        "n, vectors of each auxiliary token A_i*; 0 is plain Textual Inversion (no Eq. 2). Not measured on SD 1.5.",
        paper="not stated; Fig. 4: larger n separates better",
        ge=0,
        le=16,
    )
    auxiliary_start: str = setting(
        "auto",
        "Start of every vector of A_i*: auto, one or more words, or photographs (the three words that CLIP finds nearer to this "
        "photograph than to the others).",
        paper=NOT_STATED,
        min_length=1,
    )
    contrastive_weight: float = setting(1.0, "Weight of Eq. 2 beside Eq. 1.", paper="1 (plain sum)", ge=0, le=1e4)
    temperature: float = setting(
        1.0, "Divides the cosines of Eq. 2; smaller is sharper.", paper="not stated; 1 as Eq. 2 is written", gt=0, le=100
    )
    prompts: Annotated[Texts, holding(CONCEPT, AUXILIARY)] = setting(
        ["A photo of S* A*"],
        "Prompts of Eq. 1; S* and A* stand for the tokens. One is drawn for each photograph of a batch.",
        paper='"A photo of S* A_i*"',
        min_length=1,
        max_length=64,
    )
    contrastive_prompt: AuxiliaryPrompt = setting(
        "A*", "What the text encoder reads in Eq. 2, tau_T(A_i*).", paper="A_i*; words around it: none stated"
    )
    stop_every: int = STOP_EVERY
    stop_window: int = STOP_WINDOW
    stop_ratio: float = STOP_RATIO


UNET_PARTS = ("down_blocks", "mid_block", "up_blocks")  # in diffusers' names, of every base model that there can be


class FinetuneConfig(Group):
    """stage 2, disentangled cross-attention: trains K, V on S*, and K^a, V^a on A_i*"""

    steps: int = steps_setting(150, "150")
    learning_rate: float = learning_rate_setting(5e-6, "5e-6")
    weight_decay: float = weight_decay_setting("0.01")
    batch_size: int = batch_size_setting(4, "4")
    accumulation: Parts = ACCUMULATION
    timesteps: Timesteps = setting("uniform", TIMESTEPS, paper=NOT_STATED)
    layers: Texts = setting(
        list(UNET_PARTS),
        "Cross-attention layers that train: those whose names begin so, for instance up_blocks.1; the rest keep the base's K, V.",
        paper="the cross-attention",
        min_length=1,
        max_length=64,
    )
    concept_learning_rate: float = setting(
        0.0, "Of S*, which then trains along with K, V; 0 keeps it as stage 1 found it.", paper="0", ge=0, le=10
    )
    disentangled: bool = setting(
        True,
        "Eq. 3: A_i* has K^a, V^a of its own. false trains one K, V on S* and A_i* together, for comparison.",
        paper="yes",
    )
    auxiliary_scale: float = setting(
        1.0,
        "lambda of Eq. 3, the share of the auxiliary pathway. Not measured on SD 1.5.",
        paper=NOT_STATED,
        ge=0,
        le=10,
    )
    auxiliary_context: Literal["all", "tokens"] = setting(
        "all",
        "What K^a, V^a attend to: all positions of the encoded prompt, or those of A_i* alone "
        "(without beginning, end and padding).",
        paper=NOT_STATED,
    )
    concept_prompts: ConceptPrompts = setting(
        ["A photo of S*"],
        "Prompts that K, V see. One is drawn for each photograph of a batch.",
        paper="S* only; words around it not stated",
        min_length=1,
        max_length=64,
    )
    auxiliary_prompt: AuxiliaryPrompt = setting("A*", "Prompt that K^a, V^a see.", paper="A_i* only; words around it not stated")
    stop_every: int = STOP_EVERY
    stop_window: int = STOP_WINDOW
    stop_ratio: float = STOP_RATIO

    @field_validator("layers")
    @classmethod
    def _layers(cls, layers: list[str]) -> list[str]:
        if wrong := [layer for layer in layers if layer.partition(".")[0] not in UNET_PARTS]:
            raise ValueError(
                f"{wrong[0]!r} must be {', '.join(UNET_PARTS)}, or a part of one, such as up_blocks.1; several as in "
                "[mid_block, up_blocks.1]"
            )
        return layers

"""What is compared: ways to train, and ways to draw from what was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cictl.config import Method
from cictl.workflow.concept import Source

Drawn = Source | Literal["words", "chance", "noun"]


THE_NOUN = "<noun>"  # as a value of an override: the concept's noun


@dataclass(frozen=True)
class Training:
    """A way to train a concept.

    Attributes:
        name: also the folder of its workspaces.
        about: what it is, for the tables.
        overrides: of ci.yaml, beside the toybox's preset.
        method: another method than Contrastive Inversion; it is told the concept's noun.
    """

    name: str
    about: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    method: Method | None = None


@dataclass(frozen=True)
class Arm:
    """A row of a table: pictures of the suite's prompts.

    Attributes:
        drawn: by both stages (finetune), the first alone (invert), another method, or the untouched base, with S* replaced by
            what it is in words, by its noun, or by "thing", which is what the base gets right by chance.
        training: what was trained; None for the base.
        share: of the last training's steps that were done; a snapshot of them must be kept.
        strength, avoid: generate.strength and generate.avoid.
    """

    name: str
    about: str
    drawn: Drawn
    training: Training | None = None
    share: float = 1.0
    strength: float = 1.0
    avoid: float = 0.0


PRESET = Training("preset", "the preset, n = 1")
PLAIN = Training("n0", "without auxiliary tokens, n = 0", {"invert.auxiliary_vectors": 0})

WORDS = Arm("base-words", "base model, in words", "words")
CHANCE = Arm("base-chance", 'base model, "thing"', "chance")
MAIN = (
    Arm("preset", "both stages", "finetune", PRESET),
    Arm("preset-stage-1", "stage 1 alone", "invert", PRESET),
    Arm("n0", "n = 0, both stages", "finetune", PLAIN),
    WORDS,
    CHANCE,
)


def both(name: str, about: str, **overrides: Any) -> tuple[Arm, ...]:
    """Both stages, trained with these overrides (``invert__steps`` is invert.steps)."""
    training = Training(name, about, {key.replace("__", "."): value for key, value in overrides.items()})
    return (Arm(name, about, "finetune", training),)


ABLATIONS = (
    *MAIN,
    *both("n2", "n = 2", invert__auxiliary_vectors=2),
    *both("n4", "n = 4", invert__auxiliary_vectors=4),
    *both("n8", "n = 8", invert__auxiliary_vectors=8),
    *both("weight0", "without Eq. 2", invert__contrastive_weight=0.0),
    *both("temperature1", "temperature 1", invert__temperature=1.0),
    *both("shared", "one shared K, V", finetune__disentangled=False),
)

# Steps aside from the preset, for choosing it on the development concepts.
TUNING = (
    *MAIN,
    *both("vectors-2", "S* of 2 vectors", concept__vectors=2),
    *both("invert-500", "500 steps of stage 1", invert__steps=500),
    *both("invert-lr-2e-3", "stage 1 at 2e-3", invert__learning_rate=2e-3),
    *both("invert-lr-1e-2", "stage 1 at 1e-2", invert__learning_rate=1e-2),
    *both("invert-600", "600 steps of stage 1 at 3e-3", invert__steps=600, invert__learning_rate=3e-3),
    *both("finetune-30", "30 steps of stage 2", finetune__steps=30),
    *both("finetune-120", "120 steps of stage 2", finetune__steps=120),
    *both("finetune-lr-5e-4", "stage 2 at 5e-4", finetune__learning_rate=5e-4),
    *both("finetune-lr-2e-3", "stage 2 at 2e-3", finetune__learning_rate=2e-3),
    *both(
        "long",
        "400 steps of stage 1 at 1e-2, 200 of stage 2",
        invert__steps=400,
        invert__learning_rate=1e-2,
        finetune__steps=200,
    ),
    *both("lambda-0.1", "lambda 0.1", finetune__auxiliary_scale=0.1),
    *both("lambda-0.5", "lambda 0.5", finetune__auxiliary_scale=0.5),
    *both("lambda-1", "lambda 1", finetune__auxiliary_scale=1.0),
    *both("n4-lambda-1", "n = 4, lambda 1", invert__auxiliary_vectors=4, finetune__auxiliary_scale=1.0),
    *both("context-tokens", "K^a, V^a attend to A_i* alone", finetune__auxiliary_context="tokens"),
    *both("temperature-0.1", "temperature 0.1", invert__temperature=0.1),
    *both("temperature-0.5", "temperature 0.5", invert__temperature=0.5),
    *both("weight-0.3", "0.3 of Eq. 2", invert__contrastive_weight=0.3),
    *both("start-thing", 'S* starts as "thing"', concept__start="thing"),
)


def stops(window: int) -> dict[str, Any]:
    """Stage 1 ends early by DVAR's ratio, with this window; 310 is for thousands of steps, and the preset has 300."""
    return {"invert__stop_every": 10, "invert__stop_window": window}


# Where stage 1 starts and when it ends, and which timesteps a batch has.
STARTS_AND_STOPS = (
    *MAIN[:2],
    WORDS,
    CHANCE,
    *both("stop-60", "stage 1 may end early, window 60", **stops(60)),
    *both("stop-100", "stage 1 may end early, window 100", **stops(100)),
    *both("stop-150", "stage 1 may end early, window 150", **stops(150)),
    *both("stop-200", "stage 1 may end early, window 200", **stops(200)),
    *both("start-thing", 'S* starts as "thing"', concept__start="thing"),
    *both("start-words", 'S* starts as the mean of "toy", "thing", "object"', concept__start="toy thing object"),
    *both("start-concept", "S* starts from the photographs", concept__start="photographs"),
    *both("start-auxiliary", "A* start from the photographs", invert__auxiliary_start="photographs"),
    *both(
        "start-both",
        "S* and A* start from the photographs",
        concept__start="photographs",
        invert__auxiliary_start="photographs",
    ),
    *both(
        "start-both-stop-60",
        "S* and A* start from the photographs, window 60",
        concept__start="photographs",
        invert__auxiliary_start="photographs",
        **stops(60),
    ),
    *both("stratified", "timesteps stratified, both stages", invert__timesteps="stratified", finetune__timesteps="stratified"),
)

# What stage 2 trains beside, or in place of, K, V of every layer, and on which prompts.
STAGE_2 = (
    *MAIN[:2],
    WORDS,
    CHANCE,
    *both("layers-down", "K, V of the way down alone", finetune__layers=["down_blocks"]),
    *both("layers-mid", "K, V of the middle alone", finetune__layers=["mid_block"]),
    *both("layers-up", "K, V of the way up alone", finetune__layers=["up_blocks"]),
    *both("layers-coarse", "K, V of the coarse resolution alone", finetune__layers=["down_blocks.2", "mid_block", "up_blocks.0"]),
    *both("layers-fine", "K, V of the fine resolution alone", finetune__layers=["down_blocks.1", "up_blocks.1"]),
    *both("prompts", "K, V see three prompts", finetune__concept_prompts=["A photo of S*", "A picture of S*", "S*"]),
    *both("token-1e-3", "S* trains in stage 2 too, at 1e-3", finetune__concept_learning_rate=1e-3),
    *both("token-5e-3", "S* trains in stage 2 too, at 5e-3", finetune__concept_learning_rate=5e-3),
)
GROUPS = {
    "main": MAIN, "ablations": ABLATIONS, "tuning": TUNING, "starts-and-stops": STARTS_AND_STOPS, "stage-2": STAGE_2,
    "drawing": (),  # of methods alone
}  # fmt: skip

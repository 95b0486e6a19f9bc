"""What every group of ci.yaml is made of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from cictl.files import is_text
from cictl.placeholders import AUXILIARY, AUXILIARY_PATTERN, CONCEPT, CONCEPT_PATTERN

NOT_STATED = "not stated in the paper"
OURS = "ours"
AUTO_START = "auto"  # a start of tokens: drawn from the distribution of the vocabulary
FROM_PHOTOGRAPHS = "photographs"  # another: words that they suggest

# A list, for which one text alone may stand; the empty one may not, since "" begins every name.
OneOrMore = BeforeValidator(lambda value: [value] if isinstance(value, str) and value else value)
Texts = Annotated[list[str], OneOrMore]

MemoryMode = Literal["full", "low", "lowest"]
Timesteps = Literal["uniform", "stratified"]
TIMESTEPS = (
    "How a batch's timesteps are drawn: uniform, each alone, or stratified, one in each of batch_size equal parts of the "
    "schedule, which makes the loss of a batch less noisy and is as right on average."
)


class Group(BaseModel):
    """A group of fields: strict, and not changed after it was checked."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _writable(cls, value: Any) -> Any:
        """Refuse what ci.yaml, which is UTF-8, cannot hold, and no tokenizer reads: bytes in another encoding."""
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and not is_text(text):
                raise ValueError(f"{text!r} is not text in UTF-8")
        return value


def setting(default: Any, about: str, *, paper: str, shapes: bool = True, **limits: Any) -> Any:
    """A field of ci.yaml. ``shapes``: whether it changes the course of training, and so its fingerprint."""
    return Field(default, description=about, json_schema_extra={"paper": paper, "shapes": shapes}, **limits)


STOP_EVERY = setting(
    0,
    "Steps between evaluations of Eq. 1 on one fixed batch, by which a training may end before its steps; 0 is none, and never.",
    paper=NOT_STATED,
    shapes=False,
    ge=0,
)
STOP_WINDOW = setting(
    310,
    "Steps that the evaluations are compared over. 310 is of DVAR (arXiv 2302.04841), for thousands of steps; half of them was "
    "best on the toybox.",
    paper=NOT_STATED,
    shapes=False,
    ge=2,
)
STOP_RATIO = setting(
    0.15,
    "A training ends when the variance of the evaluations in the window is less than this part of that of all. 0.15 is of DVAR.",
    paper=NOT_STATED,
    shapes=False,
    gt=0,
    lt=1,
)


def steps_setting(default: int, paper: str) -> Any:
    """How long a training is."""
    return setting(default, "Training steps.", paper=paper, shapes=False, ge=1, le=1_000_000)


def learning_rate_setting(default: float, paper: str) -> Any:
    """How fast it goes."""
    return setting(default, "Of AdamW, constant.", paper=paper, gt=0, le=10)


def weight_decay_setting(paper: str) -> Any:
    """Of what is trained."""
    return setting(0.01, "Of AdamW.", paper=paper, ge=0, le=1)


def batch_size_setting(default: int, paper: str) -> Any:
    """What a step sees."""
    return setting(default, "Photographs (with their noise) in a step.", paper=paper, ge=1, le=256)


ACCUMULATION = setting(
    1,
    "Parts in which a batch is computed, one after another: less memory, equal but for rounding.",
    paper=NOT_STATED,
    shapes=False,
    ge=1,
    le=256,
)


def _divides_batch(accumulation: int, info: ValidationInfo) -> int:
    """Refuse a number of parts that does not divide the batch."""
    batch_size = info.data.get("batch_size")  # absent if it is wrong itself
    if batch_size is not None and batch_size % accumulation:
        raise ValueError(f"{accumulation} does not divide batch_size, which is {batch_size}")
    return accumulation


Parts = Annotated[int, AfterValidator(_divides_batch)]


def _is_a_word(noun: str) -> str:
    if not noun.strip() or CONCEPT_PATTERN.search(noun) or AUXILIARY_PATTERN.search(noun):
        raise ValueError(f"{noun!r} must be a word for what {CONCEPT} is, such as teapot")
    return noun


Noun = Annotated[str, Field(min_length=1), AfterValidator(_is_a_word)]


def holding(*needs: str) -> AfterValidator:
    """Refuse prompts that do not hold each of ``needs`` once, as words of their own, or that hold another token."""

    def check(prompts: str | list[str]) -> str | list[str]:
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            _check_prompt(prompt, needs)
        return prompts

    return AfterValidator(check)


def _check_prompt(prompt: str, needs: Collection[str]) -> None:
    for token, pattern in ((CONCEPT, CONCEPT_PATTERN), (AUXILIARY, AUXILIARY_PATTERN)):
        count = len(pattern.findall(prompt))
        if token in needs and count != 1:
            raise ValueError(f"{prompt!r} must hold {token} exactly once, as a word of its own")
        if token not in needs and count:
            raise ValueError(f"{prompt!r} must not hold {token}")


ConceptPrompt = Annotated[str, holding(CONCEPT)]
ConceptPrompts = Annotated[Texts, holding(CONCEPT)]
AuxiliaryPrompt = Annotated[str, holding(AUXILIARY)]

"""What stands for S* in a prompt, and what is put into a base model to draw a concept: a table by source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cictl.config import METHODS, STAGES, Config, Method, group_of
from cictl.data.prompts import auxiliary_names, token_names
from cictl.workflow.concept import Concept, Source
from cictl.workflow.stage import TITLES

if TYPE_CHECKING:
    from torch import Tensor

    from cictl.models.stable_diffusion import StableDiffusion

Eject = Callable[[], None]


def words_of(concept: Concept) -> list[str]:
    """What stands for S* in a prompt; nothing for the base, which does not know it."""
    return _DRAWING[concept.source].words(concept)


def method_words(method: Method, fields: Mapping[str, Any]) -> list[str]:
    """What stands for S* in the prompts of a method: its own token, a rare word before the noun, or both kinds.

    Args:
        fields: its settings by dotted key, from ci.yaml or from a checkpoint.
    """
    if method in ("textual-inversion", "custom-diffusion"):
        first = token_names(str(fields["concept.name"]), 1)
    else:
        first = [str(fields[f"{group_of(method)}.identifier"])]
    return first if method == "textual-inversion" else [*first, str(fields["evaluate.noun"])]


def without_effect(config: Config, concept: Concept) -> Iterator[str]:
    """Which of the settings that shape a picture make no difference to one of ``concept``, and why."""
    what = "the untouched base model" if concept.source == "base" else TITLES[concept.source]
    if config.generate.strength != 1 and not changes_unet(concept.source):
        yield f"generate.strength makes no difference to {what}: nothing in the UNet has changed"
    if config.generate.avoid and not auxiliary_texts(concept):
        yield f"generate.avoid makes no difference to {what}: it has no A*"
    elif config.generate.avoid and config.generate.guidance == 1:
        yield "generate.avoid makes no difference with generate.guidance 1, which is no guidance"


def strength_of(config: Config, concept: Concept) -> float:
    """``generate.strength``, or 1 where training changed nothing in the UNet."""
    return config.generate.strength if changes_unet(concept.source) else 1.0


def avoid_of(config: Config, concept: Concept) -> float:
    """``generate.avoid``, or 0 where there are no A_i*, or no guidance."""
    settings = config.generate
    return settings.avoid if settings.avoid and settings.guidance != 1 and auxiliary_texts(concept) else 0.0


def ways_to_draw(sampling: Mapping[str, Any]) -> list[str]:
    """What pictures with this ``strength`` and ``avoid`` were drawn with beside what is usual, in words."""
    strength, avoid = sampling["strength"], sampling["avoid"]
    return [*([f"strength {strength:g}"] if strength != 1 else []), *([f"avoid {avoid:g}"] if avoid else [])]


def not_exported(config: Config, concept: Concept) -> Iterator[str]:
    """Which of the settings that shape a picture of ``concept`` are of cictl's own drawing, and so not in what others load."""
    if (strength := strength_of(config, concept)) != 1:
        same = f"where it is loaded as a LoRA, a weight of {strength:g} is the same"
        yield f"whoever loads the export draws without generate.strength {strength:g}; {same}"
    if avoid := avoid_of(config, concept):
        yield f"whoever loads the export draws without generate.avoid {avoid:g}, which is cictl's own"


def auxiliary_texts(concept: Concept) -> dict[str, str]:
    """ "A photo of A_i*" as the tokenizer reads it, by the photograph's key; nothing where there are no A_i*."""
    if concept.source not in STAGES:
        return {}
    layout = concept.layout()
    named = {key: auxiliary_names(key, layout.auxiliary_vectors) for key in layout.keys}
    return {key: f"A photo of {' '.join(names)}" for key, names in named.items() if names}


def led_away(model: StableDiffusion, concept: Concept, negative: Tensor, avoid: float) -> Tensor:
    """What guidance leads away from, [1, L, D]: the encoded ``negative`` prompt, and as much of the A_i* as ``avoid`` says.

    Args:
        model: in which the concept is installed.
    """
    if not avoid:
        return negative
    import torch

    from cictl.functional.guidance import steer_away

    with torch.no_grad():
        auxiliary = model.encode_text(model.tokenize(list(auxiliary_texts(concept).values())))
    return steer_away(negative, auxiliary, avoid)


def install(concept: Concept, model: StableDiffusion, strength: float = 1.0) -> Eject:
    """Make ``model`` know the concept. What is returned gives the base back exactly as it was.

    Args:
        strength: of what training changed in the UNet: 1 is all of it, 0 nothing. The token is the same with every strength.
    """
    return _DRAWING[concept.source].install(concept, model, strength)


def changes_unet(source: Source) -> bool:
    """Whether training changed the UNet, so that a strength means something."""
    return source not in ("base", "invert", "textual-inversion")


@dataclass(frozen=True)
class _Drawing:
    """What stands for S* in a prompt, and what is put into a base model, for concepts of one source."""

    words: Callable[[Concept], list[str]]
    install: Callable[[Concept, StableDiffusion, float], Eject]


def _own_words(concept: Concept) -> list[str]:
    return concept.layout().concept_names


def _words_of_method(concept: Concept) -> list[str]:
    assert concept.source in METHODS
    return method_words(concept.source, concept.fields)


def _add_nothing(concept: Concept, model: StableDiffusion, strength: float) -> Eject:
    return lambda: None


def _add_tokens(concept: Concept, model: StableDiffusion, strength: float) -> Eject:
    tokenizer = model.tokenizer
    model.add_tokens(concept.tokens())

    def eject() -> None:
        model.eject_tokens()
        model.tokenizer = tokenizer

    return eject


def _add_tokens_and_tune(concept: Concept, model: StableDiffusion, strength: float) -> Eject:
    from cictl.models.attention_processors import TunedCrossAttention

    eject_tokens = _add_tokens(concept, model, strength)
    tuned = TunedCrossAttention(model.unet, interpolate(lambda: model.key_values, concept.key_values(), strength))
    tuned.inject()

    def eject() -> None:
        tuned.eject()
        eject_tokens()

    return eject


def _replace_unet(concept: Concept, model: StableDiffusion, strength: float) -> Eject:
    from cictl.engine.checkpoint import parse_tensors
    from cictl.models.base_files import base_unet_weights
    from cictl.models.tuned_unet import TunedUNet

    weights = interpolate(lambda: base_unet_weights(model.located), parse_tensors(concept.results[0]), strength)
    tuned = TunedUNet(model.unet, weights)
    tuned.inject()
    return tuned.eject


def _add_lora(concept: Concept, model: StableDiffusion, strength: float) -> Eject:
    from cictl.engine.checkpoint import parse_tensors
    from cictl.models.tuned_unet import AttentionLoRA

    tensors = parse_tensors(concept.results[0])
    lora = AttentionLoRA(
        model.unet, {name: tensor * strength if name.endswith(".up") else tensor for name, tensor in tensors.items()}
    )
    lora.inject()
    return lora.eject


def interpolate(base: Callable[[], Mapping[str, Tensor]], tuned: Mapping[str, Tensor], strength: float) -> Mapping[str, Tensor]:
    """W + strength (W' - W) of each weight, in fp32 on the CPU; ``tuned`` itself at strength 1, and what ``base`` gives at 0.

    Args:
        base: gives W by name; asked for if it is needed.
        tuned: W' by name.
    """
    import torch

    if strength == 1:
        return tuned
    own = base()
    return {name: torch.lerp(own[name].float(), weight.float(), strength) for name, weight in tuned.items()}


_DRAWING: Mapping[Source, _Drawing] = {
    "base": _Drawing(lambda concept: [], _add_nothing),
    "invert": _Drawing(_own_words, _add_tokens),
    "finetune": _Drawing(_own_words, _add_tokens_and_tune),
    "textual-inversion": _Drawing(_words_of_method, _add_tokens),
    "dreambooth": _Drawing(_words_of_method, _replace_unet),
    "custom-diffusion": _Drawing(_words_of_method, _add_tokens_and_tune),
    "disenbooth": _Drawing(_words_of_method, _add_lora),
}

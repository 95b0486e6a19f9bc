"""The methods of the paper's Table 1 that Contrastive Inversion is compared with, as groups of ci.yaml.

`cictl init` does not write them. "Paper" is here the method's own, as its public code has it, and Table 1 is that of
arXiv 2508.07755, which trains each of them anew.
"""

from __future__ import annotations

from cictl.config.fields import (
    ACCUMULATION,
    OURS,
    STOP_EVERY,
    STOP_RATIO,
    STOP_WINDOW,
    TIMESTEPS,
    ConceptPrompt,
    ConceptPrompts,
    Group,
    Parts,
    Timesteps,
    batch_size_setting,
    learning_rate_setting,
    setting,
    steps_setting,
    weight_decay_setting,
)

_PROMPT = "What is trained on; S* stands for {}, as in every prompt of the method."
_CLIP_ABOUT = "Largest norm that the gradients of a step may have together; null is any."
_CLASS_PICTURES = "Pictures of the noun that the untouched base draws for the prior loss, once; they are kept in outputs/class/."


class _Training(Group):
    """what every method is trained with"""

    weight_decay: float = weight_decay_setting("1e-2")
    batch_size: int = batch_size_setting(4, "Table 1: 4")
    accumulation: Parts = ACCUMULATION
    timesteps: Timesteps = setting("uniform", TIMESTEPS, paper="uniform")
    stop_every: int = STOP_EVERY
    stop_window: int = STOP_WINDOW
    stop_ratio: float = STOP_RATIO


class TextualInversionConfig(_Training):
    """Textual Inversion (arXiv 2208.01618): trains one new token"""

    steps: int = steps_setting(3000, "Table 1: 3000")
    learning_rate: float = learning_rate_setting(5e-4, "Table 1: 5e-4")
    start: str | None = setting(
        None,
        "A word that the token starts from; null is the noun (evaluate.noun), or, without one, concept.start.",
        paper="a word that describes the concept",
        min_length=1,
    )
    prompts: ConceptPrompts = setting(
        [], "What is trained on, one for each photograph of a batch; none are the paper's, by concept.kind.",
        paper="27 prompts for objects, 19 for styles", max_length=64,
    )  # fmt: skip
    mirror: bool = setting(True, "Mirror every other photograph, by chance.", paper="yes, with probability 0.5")


class DreamBoothConfig(_Training):
    """DreamBooth (arXiv 2208.12242): trains the whole UNet"""

    steps: int = steps_setting(150, "Table 1: 150")
    learning_rate: float = learning_rate_setting(5e-6, "Table 1: 5e-6")
    gradient_clip: float | None = setting(1.0, _CLIP_ABOUT, paper="1", gt=0)
    identifier: str = setting("sks", "The rare word before the noun.", paper="sks", min_length=1)
    prompt: ConceptPrompt = setting("a photo of S*", _PROMPT.format("identifier and noun"), paper='"a photo of sks dog"')
    prior_weight: float = setting(
        0.0, "Weight of the loss on class pictures; 0 makes none of them.", paper="1, optional; Table 1: not stated", ge=0, le=100
    )
    class_pictures: int = setting(100, _CLASS_PICTURES, paper="100 to 200", ge=1, le=10_000)


class CustomDiffusionConfig(_Training):
    """Custom Diffusion (arXiv 2212.04488): trains the cross-attention's K, V and one new token before the noun"""

    steps: int = steps_setting(300, "Table 1: 300")
    learning_rate: float = learning_rate_setting(1e-4, "Table 1: 1e-4")
    gradient_clip: float | None = setting(1.0, _CLIP_ABOUT, paper="1", gt=0)
    start: str = setting("ktn", "A rare word that the token starts from.", paper="ktn", min_length=1)
    prompt: ConceptPrompt = setting("photo of a S*", _PROMPT.format("token and noun"), paper='"photo of a <new1> cat"')
    prior_weight: float = setting(1.0, "Weight of the loss on class pictures; 0 makes none of them.", paper="1", ge=0, le=100)
    class_pictures: int = setting(200, _CLASS_PICTURES, paper="200", ge=1, le=10_000)
    augment: bool = setting(
        True, 'Photographs are made smaller or larger, and the prompt says so ("zoomed in ...").', paper="yes"
    )
    views: int = setting(
        50,
        "Sizes and places in which each photograph is encoded, beforehand, for augment; the paper draws new ones at every step.",
        paper=OURS,
        ge=1,
        le=1000,
    )


class DisenBoothConfig(_Training):
    """DisenBooth (arXiv 2305.03374): trains LoRA, and what each photograph has of its own through an adapter of its embedding"""

    steps: int = steps_setting(2000, "Table 1: 2000")
    learning_rate: float = learning_rate_setting(1e-4, "1e-4")
    batch_size: int = batch_size_setting(1, "1")
    gradient_clip: float | None = setting(1.0, _CLIP_ABOUT, paper="1, of the LoRA's alone", gt=0)
    identifier: str = setting("sks", "The rare word before the noun.", paper="a rare word", min_length=1)
    prompt: ConceptPrompt = setting("a photo of S*", _PROMPT.format("identifier and noun"), paper='"a photo of sks dog"')
    rank: int = setting(4, "Of the LoRA.", paper="4", ge=1, le=128)
    weak_weight: float = setting(0.01, "Weight of the loss without the photograph's embedding.", paper="0.01", ge=0, le=100)
    contrast_weight: float = setting(
        0.001, "Weight of the cosine between the two embeddings, which is to fall.", paper="0.001", ge=0, le=100
    )

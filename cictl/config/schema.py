"""The schema of ci.yaml: every field with its unit, the paper's value, and what it does.

"The paper" is arXiv 2508.07755. Defaults are the paper's for Stable Diffusion 1.x; where the paper is
silent, the plain reading of its equations or a reasoned value, and the field says so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cictl.config.baselines import CustomDiffusionConfig, DisenBoothConfig, DreamBoothConfig, TextualInversionConfig
from cictl.config.contrastive_inversion import FinetuneConfig, InvertConfig
from cictl.config.fields import NOT_STATED, OURS, Group, MemoryMode, Noun, OneOrMore, setting
from cictl.config.stages import Stage, group_of
from cictl.placeholders import NAME_PATTERN


class ConceptConfig(Group):
    """what the photographs share"""

    name: str = setting(
        "concept",
        "Name of the concept: lower-case letters, digits, dashes. The stored token is <name>; exports use it.",
        paper=OURS,
        pattern=f"^{NAME_PATTERN.pattern}$",
    )
    kind: Literal["object", "style", "pose"] = setting(
        "object", "What the photographs share; `cictl init --kind` chose the prompts below by it.", paper=NOT_STATED
    )
    vectors: int = setting(1, "Number of token vectors that S* has.", paper="1 (S* is one token)", ge=1, le=16)
    start: str = setting(
        "auto",
        "Start of S*: auto (seeded, with the norm of ordinary vocabulary rows), a word of the vocabulary, several words (their "
        "mean), or photographs (the mean of the three words that CLIP finds nearest to them).",
        paper=NOT_STATED,
        min_length=1,
    )


class ModelConfig(Group):
    """the base model, which is never changed"""

    id: str = setting(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "Base model: an id on the hub, a folder in diffusers layout, a .safetensors checkpoint, or toybox (embedded, for trying "
        "things out).",
        paper="Stable Diffusion 1.5",
        min_length=1,
    )
    revision: str | None = setting(None, "Commit or branch on the hub; null is its main branch.", paper=NOT_STATED)
    clip: str = setting(
        "openai/clip-vit-large-patch14",
        "CLIP whose text tower the base model uses: its image tower and projections are for Eq. 2.",
        paper="CLIP ViT-L/14",
        min_length=1,
    )
    clip_revision: str | None = setting(None, "Commit or branch of the CLIP model.", paper=NOT_STATED)
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = setting(
        "auto",
        "Precision of the frozen parts (auto: bf16 where the GPU has it, else fp16; fp32 on a CPU). "
        "What is trained is always fp32.",
        paper=NOT_STATED,
    )
    memory: Literal["auto", MemoryMode] = setting(
        "auto",
        "What training keeps for the backward pass: full is all of it; low computes the UNet's blocks of the highest resolution "
        "again, lowest all blocks: less memory, more time, the same bits. auto is the fastest that fits into 90% of a GPU's free "
        "memory (for the two stages; else full).",
        paper=NOT_STATED,
        shapes=False,
    )
    cuda_graph: bool = setting(
        True,
        "Let a GPU record a step of training or drawing as a CUDA graph and replay it, which is faster; false for a GPU or a "
        "driver that cannot.",
        paper=NOT_STATED,
        shapes=False,
    )
    fused: bool = setting(
        True,
        "Let a GPU normalise and gate by kernels of cictl's own, which is faster and takes less memory; false is the library's. "
        "They need Triton and a C compiler, and are left out where these are missing.",
        paper=NOT_STATED,
        shapes=False,
    )
    deterministic: bool = setting(
        False,
        "Let a GPU compute the same bits every time, so that a training that was stopped has those of one that was not; a third "
        "slower. A CPU always does.",
        paper=NOT_STATED,
        shapes=False,
    )
    device: str = setting(
        "auto", "auto, cpu, cuda, cuda:1, mps.", paper=NOT_STATED, shapes=False, pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$"
    )


class DataConfig(Group):
    """the photographs"""

    resolution: int = setting(
        512,
        "Side of the centre crop, in pixels: the size that the base model was trained for.",
        paper="512",
        ge=64,
        le=2048,
        multiple_of=8,
    )


# One less than the timesteps there are: with all of them DDIM steps past the last, and DPM-Solver++ and UniPC give no numbers.
MOST_STEPS = 999


class GenerateConfig(Group):
    """pictures"""

    steps: int = setting(50, "Denoising steps.", paper="50", shapes=False, ge=1, le=MOST_STEPS)
    guidance: float = setting(5.0, "Classifier-free guidance scale; 1 is none.", paper="5", shapes=False, ge=0, le=50)
    sampler: Literal["ddim", "dpm++", "euler", "unipc"] = setting(
        "ddim", "ddim, dpm++, euler or unipc.", paper="DDIM", shapes=False
    )
    strength: float = setting(
        1.0,
        "How much of what training changed in the UNet is used: 1 is all of it, 0 none, so that S* alone draws; above 1 it is "
        "exaggerated. Less keeps less of the concept.",
        paper="1",
        shapes=False,
        ge=0,
        le=2,
    )
    avoid: float = setting(
        0.0,
        "How much guidance leads away from what only single photographs show, as A* hold it: 0 not at all, 1 from that in place "
        "of the negative prompt. Try 0.5 where their backgrounds come along. Ours, not of the paper.",
        paper=OURS,
        shapes=False,
        ge=0,
        le=2,
    )
    negative: str = setting("", "Negative prompt.", paper=NOT_STATED, shapes=False)
    width: int | None = setting(
        None, "In pixels; null is data.resolution.", paper="512", shapes=False, ge=64, le=2048, multiple_of=8
    )
    height: int | None = setting(
        None, "In pixels; null is data.resolution.", paper="512", shapes=False, ge=64, le=2048, multiple_of=8
    )
    count: int = setting(4, "Pictures a prompt, with seeds one after another.", paper="4", shapes=False, ge=1, le=10_000)
    batch_size: int = setting(
        4,
        "Pictures denoised at a time: a question of memory, not of the result. Where they do not fit, half as many are.",
        paper=NOT_STATED,
        shapes=False,
        ge=1,
        le=64,
    )
    safety_checker: Literal["auto", "off"] = setting(
        "auto",
        "auto: pictures that the base model's own safety checker flags are blanked, if it ships one. "
        "off: they are not, and the files say so.",
        paper=NOT_STATED,
        shapes=False,
    )


class EvaluateConfig(Group):
    """how well S* keeps what the photographs share, and prompts still work (docs/evaluation.md)"""

    dinov2: str | None = setting(
        "facebook/dinov2-base",
        "DINOv2 for image similarity: an id on the hub or a folder; null leaves the figure out.",
        paper="DINOv2",
        shapes=False,
        min_length=1,
    )
    dinov2_revision: str | None = setting(None, "Commit or branch of it.", paper=NOT_STATED, shapes=False)
    clip: str | None = setting(
        "openai/clip-vit-large-patch14",
        "CLIP for text similarity: an id on the hub, a folder, or toybox; null leaves its figures out.",
        paper="CLIP",
        shapes=False,
        min_length=1,
    )
    clip_revision: str | None = setting(None, "Commit or branch of it.", paper=NOT_STATED, shapes=False)
    prompts: str = setting(
        "auto",
        "What is drawn: auto (a short set for concept.kind), dreambench-object, dreambench-live, object, style, pose, toybox "
        "(the tasks of a concept that the toybox knows), or a text file with a prompt a line.",
        paper="DreamBench's",
        shapes=False,
        min_length=1,
    )
    noun: Noun | None = setting(
        None,
        "What S* is, in a word such as teapot, for CLIP's reading of a prompt, and for methods other than ours that need one; "
        "null leaves S* out of prompts that CLIP reads.",
        paper=NOT_STATED,
        shapes=False,
    )
    count: int = setting(
        4, "Pictures a prompt, with seeds one after another.", paper="DreamBooth's protocol: 4", shapes=False, ge=1, le=10_000
    )


class CheckpointConfig(Group):
    """what a killed training loses at most"""

    interval: int = setting(
        100, "Steps between checkpoints; one is also written at the end and on Ctrl-C.", paper=OURS, shapes=False, ge=1
    )
    snapshots: int = setting(
        3,
        "Results that are kept for good along a training, at equal distances, beside the last one: `cictl compare` says which is "
        "best.",
        paper="each method's best epoch",
        shapes=False,
        ge=0,
        le=100,
    )


class PreviewConfig(Group):
    """pictures made in the middle of training"""

    interval: int = setting(0, "Steps between previews; 0 is none.", paper=OURS, shapes=False, ge=0)
    prompt: str = setting("A photo of S*", "What they show.", paper=OURS, shapes=False, min_length=1)
    steps: int = setting(25, "Denoising steps of a preview.", paper=OURS, shapes=False, ge=1, le=MOST_STEPS)


Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab", "trackio"]


class TrackingConfig(Group):
    """how often training reports, and where to"""

    interval: int = setting(
        10,
        "Steps between readings of losses and memory (each makes a GPU wait); the log still has every step.",
        paper=OURS,
        shapes=False,
        ge=1,
        le=1000,
    )
    to: Annotated[list[Tracker], OneOrMore] = setting(
        [],
        "Trackers that are told losses, rates, memory and previews, beside logs/: tensorboard (its files lie in "
        "logs/tensorboard), wandb, mlflow, comet_ml, aim, clearml, dvclive, swanlab, trackio. Each must be installed.",
        paper=OURS,
        shapes=False,
    )


class Config(Group):
    """All of ci.yaml."""

    concept: ConceptConfig = Field(default_factory=ConceptConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    invert: InvertConfig = Field(default_factory=InvertConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    generate: GenerateConfig = Field(default_factory=GenerateConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    preview: PreviewConfig = Field(default_factory=PreviewConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    textual_inversion: TextualInversionConfig = Field(default_factory=TextualInversionConfig)
    dreambooth: DreamBoothConfig = Field(default_factory=DreamBoothConfig)
    custom_diffusion: CustomDiffusionConfig = Field(default_factory=CustomDiffusionConfig)
    disenbooth: DisenBoothConfig = Field(default_factory=DisenBoothConfig)
    seed: int = setting(0, "Seed of everything random.", paper=NOT_STATED, ge=0, lt=2**63)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Width and height of what is drawn, in pixels."""
        return self.generate.width or self.data.resolution, self.generate.height or self.data.resolution


Training = InvertConfig | FinetuneConfig | TextualInversionConfig | DreamBoothConfig | CustomDiffusionConfig | DisenBoothConfig


def settings_of(config: Config, stage: Stage) -> Training:
    """The settings of a stage or a method."""
    settings: Training = getattr(config, group_of(stage))
    return settings

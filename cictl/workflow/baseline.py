"""`cictl baseline METHOD`: the methods that Contrastive Inversion is compared with, trained on the same photographs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cictl.config import AUTO_START, FROM_PHOTOGRAPHS, NEED_A_NOUN, Config, Method, command_of, trajectory
from cictl.data.photographs import Photograph, load_pixels, open_upright
from cictl.data.prompts import expand, in_words
from cictl.errors import UsageError
from cictl.events import Note, Observer, PhaseStarted
from cictl.models.locate import Located
from cictl.placeholders import CONCEPT
from cictl.workflow.beginning import Beginning
from cictl.workflow.drawing import method_words
from cictl.workflow.pins import find_base, find_clip
from cictl.workflow.prepared import Prepared
from cictl.workflow.stage import TITLES, configure
from cictl.workflow.training import TrainingOutcome, run_stage
from cictl.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from cictl.data.draws import EncodedPhotographs
    from cictl.engine.runtime import Runtime
    from cictl.models.concept_tokens import ConceptTokens
    from cictl.models.stable_diffusion import StableDiffusion


def run(
    workspace: Workspace,
    method: Method,
    observe: Observer,
    *,
    overrides: Mapping[str, Any] | None = None,
    restart: bool = False,
    dry_run: bool = False,
) -> TrainingOutcome:
    """Train ``method``, or go on training it.

    Raises:
        UsageError: it needs a noun, and there is none; else see :func:`run_stage`.
    """
    config = configure(workspace, overrides or {}, upto=method, fresh=restart)
    if method in NEED_A_NOUN:
        require_noun(config, TITLES[method], f"{command_of(method)}{' --restart' if restart else ''}")

    def prepare(start: Beginning, runtime: Runtime, observe: Observer) -> Prepared:
        return _PREPARE[method](_Bench(method, start, runtime, observe))

    return run_stage(workspace, method, prepare, observe, overrides=overrides or {}, restart=restart, dry_run=dry_run)


def require_noun(config: Config, what: str, command: str) -> str:
    """What S* is, in a word.

    Args:
        what: needs it.
        command: to type again with it.

    Raises:
        UsageError: nobody has said it.
    """
    if config.evaluate.noun is None:
        raise UsageError(
            f"{what} must be told what {CONCEPT} is, in a word, which Contrastive Inversion finds out without",
            f"for example: {command} --noun teapot",
            slug="noun-missing",
        )
    return config.evaluate.noun


@dataclass(frozen=True)
class _Bench:
    """What every method is prepared from."""

    method: Method
    start: Beginning
    runtime: Runtime
    observe: Observer

    @property
    def config(self) -> Config:
        """Of the run."""
        return self.start.config

    @property
    def photographs(self) -> Sequence[Photograph]:
        """That it trains on."""
        return self.start.photographs

    def find_base(self) -> Located:
        """The base model that this training stays with."""
        return find_base(self.config, self.start.pins, self.observe)

    def open(self, base: Located) -> StableDiffusion:
        """Load it."""
        from cictl.workflow.base_model import open_to_train

        return open_to_train(self.config, self.method, base, self.runtime, self.observe)

    def text(self, prompt: str) -> str:
        """A prompt as the tokenizer reads it, with what the method has for S*."""
        return expand(prompt, method_words(self.method, trajectory(self.config, self.method)))

    def class_prompt(self, prompt: str) -> str:
        """A prompt with the noun alone for S*."""
        return in_words(prompt, self.config.evaluate.noun)

    def class_pixels(self, base: Located, prompt: str, count: int, weight: float) -> list[np.ndarray]:
        """Class pictures for a prior loss of this ``weight``, drawn before a model is loaded to train; none without one."""
        if not weight:
            return []
        from cictl.workflow.class_pictures import class_pictures

        workspace, prompt, processes = self.start.workspace, self.class_prompt(prompt), self.runtime.processes
        return class_pictures(
            workspace, self.config, base, prompt, count, self.observe, again="the same command", processes=processes
        )

    def encode(self, model: StableDiffusion, pictures: Sequence[np.ndarray], views: int = 1) -> EncodedPhotographs:
        """Photographs as training sees them, of which ``pictures`` has so many views each."""
        from cictl.data.draws import EncodedPhotographs

        self.observe(PhaseStarted(f"encoding {len(pictures)} views of {len(self.photographs)} photographs"))
        mean, std = model.encode_pictures(pictures)
        return EncodedPhotographs(tuple(photograph.key for photograph in self.photographs), mean, std, views=views)

    def encode_class(self, model: StableDiffusion, pictures: Sequence[np.ndarray]) -> EncodedPhotographs | None:
        """Class pictures as training sees them, if there are any."""
        from cictl.data.draws import EncodedPhotographs
        from cictl.workflow.class_pictures import identity_of

        if not pictures:
            return None
        self.observe(PhaseStarted(f"encoding {len(pictures)} class pictures"))
        return EncodedPhotographs(tuple(map(identity_of, pictures)), *model.encode_pictures(pictures))

    def preview(self, model: StableDiffusion) -> Callable[[int], None]:
        """A function that draws the preview's prompt after a number of steps."""
        from cictl.workflow.base_model import previewer, prompt_encoder

        encode = prompt_encoder(model, self.text(self.config.preview.prompt))
        return previewer(self.start.workspace, self.method, self.config, model, encode, self.observe)


def _textual_inversion(bench: _Bench) -> Prepared:
    from cictl.data.views import mirrored
    from cictl.methods.textual_inversion import OBJECT_PROMPTS, STYLE_PROMPTS, TextualInversion

    config, settings = bench.config, bench.config.textual_inversion
    model = bench.open(bench.find_base())
    squares = [load_pixels(photograph, config.data.resolution) for photograph in bench.photographs]
    ways = [(square, mirrored(square)) if settings.mirror else (square,) for square in squares]
    encoded = bench.encode(model, [view for way in ways for view in way], views=len(ways[0]))
    ours = AUTO_START if config.concept.start == FROM_PHOTOGRAPHS else config.concept.start  # that one is no word
    tokens = _one_token(bench, model, settings.start or config.evaluate.noun or ours)
    prompts = settings.prompts or (STYLE_PROMPTS if config.concept.kind == "style" else OBJECT_PROMPTS)
    return Prepared(TextualInversion(model, tokens, prompts), encoded, bench.preview(model), model.timesteps)


def _dreambooth(bench: _Bench) -> Prepared:
    from cictl.methods.dreambooth import DreamBooth
    from cictl.models.base_files import base_unet_weights
    from cictl.workflow.base_model import encode_photographs

    settings = bench.config.dreambooth
    base = bench.find_base()
    pictures = bench.class_pixels(base, settings.prompt, settings.class_pictures, settings.prior_weight)
    model = bench.open(base)
    encoded = encode_photographs(model, bench.photographs, bench.config.data.resolution, None, bench.observe)
    of_class = bench.encode_class(model, pictures)
    weights = base_unet_weights(base)
    prompt, class_prompt = bench.text(settings.prompt), bench.class_prompt(settings.prompt)
    method = DreamBooth(model, weights, prompt, class_prompt, settings)
    size = 4 * sum(weight.numel() for weight in weights.values()) / 1e6
    bench.observe(Note(f"the whole UNet is trained: a checkpoint takes {3 * size:,.0f} MB, each snapshot {size:,.0f} MB"))
    return Prepared(method, encoded, bench.preview(model), model.timesteps, settings.gradient_clip, of_class)


def _custom_diffusion(bench: _Bench) -> Prepared:
    import torch

    from cictl.data.draws import randomness
    from cictl.data.views import rescaled, whole
    from cictl.methods.custom_diffusion import CustomDiffusion

    config, settings = bench.config, bench.config.custom_diffusion
    base = bench.find_base()
    pictures = bench.class_pixels(base, settings.prompt, settings.class_pictures, settings.prior_weight)
    model = bench.open(base)
    size, views = config.data.resolution, []
    for photograph in bench.photographs:
        image = open_upright(photograph.path)
        if settings.augment:
            draws = [randomness(config.seed, bench.method, photograph.key, index) for index in range(settings.views)]
            views += [rescaled(image, size, model.reduction, draw) for draw in draws]
        else:
            views.append(whole(image, size, model.reduction))
    encoded = bench.encode(model, [view.pixels for view in views], views=len(views) // len(bench.photographs))
    of_class = bench.encode_class(model, pictures)
    tokens = _one_token(bench, model, settings.start)
    masks = torch.stack([torch.from_numpy(view.mask) for view in views]).unsqueeze(1).to(model.device)
    prompts = [view.prefix + bench.text(settings.prompt) for view in views]
    method = CustomDiffusion(model, tokens, prompts, masks, bench.class_prompt(settings.prompt), settings)
    return Prepared(method, encoded, bench.preview(model), model.timesteps, settings.gradient_clip, of_class)


def _disenbooth(bench: _Bench) -> Prepared:
    from cictl.methods.disenbooth import DisenBooth
    from cictl.workflow.base_model import encode_photographs

    config, settings = bench.config, bench.config.disenbooth
    base = bench.find_base()
    clip = find_clip(config, bench.start.pins, bench.observe)
    model = bench.open(base)
    encoded = encode_photographs(model, bench.photographs, config.data.resolution, clip, bench.observe)
    method = DisenBooth(model, encoded, bench.text(settings.prompt), settings, config.seed)
    return Prepared(method, encoded, bench.preview(model), model.timesteps, settings.gradient_clip)


def _one_token(bench: _Bench, model: StableDiffusion, start: str) -> ConceptTokens:
    """A new token that starts as the word ``start``, which ``model`` knows from now on."""
    from cictl.models.concept_tokens import initial_tokens

    tokens = initial_tokens(
        model.tokenizer, model.text_encoder, name=bench.config.concept.name, vectors=1, start=start, keys=(),
        auxiliary_vectors=0, auxiliary_start=start, seed=bench.config.seed,
    )  # fmt: skip
    model.add_tokens(tokens)
    return tokens


_PREPARE: Mapping[Method, Callable[[_Bench], Prepared]] = {
    "textual-inversion": _textual_inversion,
    "dreambooth": _dreambooth,
    "custom-diffusion": _custom_diffusion,
    "disenbooth": _disenbooth,
}

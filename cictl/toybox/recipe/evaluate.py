"""Component ``evaluate``: the weights that ship against the bars they were made for; the judge's own ceilings beside them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cictl.data.png import Row, sheet, write_png
from cictl.engine.sampling import sample
from cictl.files import write_atomic
from cictl.models.locate import Located
from cictl.models.stable_diffusion import StableDiffusion
from cictl.toybox.judge import Judge, accuracy, load_judge, read
from cictl.toybox.recipe.vae import to_pixels
from cictl.toybox.recipe.zero_shot import attributes_zero_shot, retrieval
from cictl.toybox.world.captions import caption
from cictl.toybox.world.render import render
from cictl.toybox.world.scene import HELD_OUT_OVERRIDES, Scene, is_held_out, sample_look, sample_scene
from cictl.toybox.world.truth import truth

_SEED = 2  # training pools have others
_BATCH = 25
PROMPTS = (
    "a photo of a red cube on a beach", "a photo of a blue and white striped ball in the snow",
    "a photo of a yellow star at night", "a photo of a green and white checkered mug in a room",
    "a photo of an orange teapot in the city", "a photo of a purple and yellow dotted bottle in a forest",
    "a photo of a pink heart in front of a brick wall", "a photo of a cyan ring in the water",
    "a photo of a red and white dotted mushroom on a meadow", "a photo of a black cone in the desert",
    "a sketch of a teapot on a beach", "a sketch of a striped mug in a room", "a cartoon of a red star in the city",
    "a photo of a cube-shaped red and white striped teapot in a studio",
    "a photo of a red cube on a meadow next to a small blue ball", "a photo of a yellow mug upside down in the snow",
)  # fmt: skip
# The least that the judge must read right in generated pictures of prompts from the grammar.
BARS = {"form": 0.90, "colour": 0.95, "background": 0.95, "pattern": 0.85, "style": 0.95, "companion": 0.85}
_MOST_BYTES = 25 * 2**20
_RETRIEVAL = "CLIP, the right caption among 64"


@dataclass(frozen=True)
class Bar:
    """Something that the weights must reach, and what they reach."""

    of: str
    reached: float
    least: float

    @property
    def met(self) -> bool:
        return self.reached >= self.least


@dataclass(frozen=True)
class Line:
    """A row of the table: what was read, of how many pictures, and the share that was right."""

    of: str
    count: int
    right: dict[str, float]

    def markdown(self, columns: Sequence[str]) -> str:
        cells = (f"{self.right[name]:.2f}" if name in self.right else "" for name in columns)
        return f"| {self.of} ({self.count}) | {' | '.join(cells)} |"


def evaluate(work: Path, folder: Path, count: int, steps: int, guidance: float) -> None:
    """Print the table of the bars, and write it, as JSON, with a sheet of 48 pictures to ``work``."""
    judge = load_judge(folder)
    model = StableDiffusion.load(Located("toybox", folder, ""), torch.device("cpu"), torch.float32)
    rng = np.random.default_rng(_SEED)
    scenes = [sample_scene(rng) for _ in range(count)]
    fewer = max(1, count // 3)
    kinds: list[tuple[str, list[Scene]]] = [
        ("prompts of the grammar", scenes),
        ("looks never trained on", [_with_look(rng, True) for _ in range(fewer)]),
        ("as many looks that were", [_with_look(rng, False) for _ in range(fewer)]),
        ("shape overrides never trained on", [_overridden(rng, True) for _ in range(fewer)]),
        ("shape overrides that were", [_overridden(rng, False) for _ in range(fewer)]),
    ]
    real = np.stack([render(scene, rng)[0] for scene in scenes])
    decoded, decibel = _reconstructed(model, real)
    lines = [_line("renders", judge, real, scenes), _line("the VAE's reconstructions of them", judge, decoded, scenes)]
    for name, own in kinds:
        made = draw(model, [caption(scene, rng, full=True) for scene in own], steps, guidance)
        lines.append(_line(f"generated: {name}", judge, made, own))
    columns = list(lines[0].right)
    print(f"| the judge reads right in | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for line in lines:
        print(line.markdown(columns), flush=True)
    found = {"VAE, dB": decibel, _RETRIEVAL: retrieval(folder, model)}
    found |= {f"CLIP, zero-shot {name}": share for name, share in attributes_zero_shot(folder, model).items()}
    bars = _bars(lines, found, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    print("\n| bar | reached | at least | met |\n|---|---|---|---|")
    for bar in bars:
        print(f"| {bar.of} | {bar.reached:.3f} | {bar.least:g} | {'yes' if bar.met else 'no'} |")
    report = {
        "steps": steps,
        "guidance": guidance,
        "lines": [dataclasses.asdict(line) for line in lines],
        "others": found,
        "bars": [dataclasses.asdict(bar) for bar in bars],
    }
    write_atomic(work / "evaluation.json", json.dumps(report, indent=1).encode())
    pictures = draw(model, [prompt for prompt in PROMPTS for _ in range(3)], steps, guidance)
    rows = [Row("", list(pictures[start : start + 12])) for start in range(0, len(pictures), 12)]
    write_png(work / "sheet.png", sheet(rows, tile=128))


def _bars(lines: Sequence[Line], found: Mapping[str, float], size: int) -> list[Bar]:
    """Each bar; ``lines`` in the order in which :func:`evaluate` makes them."""
    renders, decoded, grammar, unseen, seen, overrides, _ = (line.right for line in lines)
    bars = [Bar(f"generated: {name}", grammar[name], least) for name, least in BARS.items()]
    worst = min(unseen[name] - seen[name] for name in BARS)
    bars.append(Bar("looks never trained on, less those that were, in the worst attribute", worst, -0.10))
    bars.append(Bar("shape overrides never trained on: form", overrides["form"], 0.60))
    worst = min(decoded[name] - renders[name] for name in BARS)
    bars.append(Bar("the VAE's reconstructions less renders, in the worst attribute", worst, -0.03))
    bars += [Bar("VAE, dB", found["VAE, dB"], 27.0), Bar(_RETRIEVAL, found[_RETRIEVAL], 0.90)]
    bars += [Bar(name, share, 0.85) for name, share in found.items() if name.startswith("CLIP, zero-shot")]
    return [*bars, Bar("MiB left of 25", (_MOST_BYTES - size) / 2**20, 0.0)]


def draw(model: StableDiffusion, prompts: list[str], steps: int, guidance: float) -> np.ndarray:
    """A picture for each prompt, [n, 64, 64, 3] of bytes."""
    made = []
    with torch.no_grad():
        negative = model.encode_text(model.tokenize([""]))
        for start in range(0, len(prompts), _BATCH):
            part = prompts[start : start + _BATCH]
            context: Tensor = model.encode_text(model.tokenize(part))
            seeds = list(range(start, start + len(part)))
            latents = sample(model, context, negative, seeds, size=(64, 64), steps=steps, guidance=guidance)
            made.append(model.decode(latents))
    return np.concatenate(made)


def _line(of: str, judge: Judge, pictures: np.ndarray, scenes: Sequence[Scene]) -> Line:
    readings, truths = read(judge, pictures), [truth(scene) for scene in scenes]
    right = accuracy(readings, truths)
    # As asked: no companion where none was asked for, else its shape and its colour.
    beside = ("companion shape", "companion colour")
    right["companion"] = float(
        np.mean([all(own[key] in (None, reading[key]) for key in beside) for reading, own in zip(readings, truths, strict=True)])
    )
    return Line(of, len(scenes), right)


def _with_look(rng: np.random.Generator, held_out: bool) -> Scene:
    """A scene whose patterned look was, or was not, held out of training."""
    scene = _such(rng, lambda scene: scene.pattern != "plain" and scene.form == scene.noun)
    if not held_out:
        return scene
    while True:
        noun, colour, pattern, accent = sample_look(rng)
        if is_held_out(noun, colour, pattern, accent):
            return dataclasses.replace(scene, noun=noun, form=noun, colour=colour, pattern=pattern, accent=accent, pose="upright")


def _overridden(rng: np.random.Generator, held_out: bool) -> Scene:
    """A scene of a thing in another's form, coloured, since a sketch says little; of those held out, or of the others."""
    scene = _such(rng, lambda scene: scene.form != scene.noun and scene.style != "sketch")
    if not held_out:
        return scene
    noun, form = sorted(HELD_OUT_OVERRIDES)[int(rng.integers(len(HELD_OUT_OVERRIDES)))]
    return dataclasses.replace(scene, noun=noun, form=form, pose="upright")


def _such(rng: np.random.Generator, wanted: Callable[[Scene], bool]) -> Scene:
    while not wanted(scene := sample_scene(rng)):
        pass
    return scene


@torch.no_grad()
def _reconstructed(model: StableDiffusion, pictures: np.ndarray) -> tuple[np.ndarray, float]:
    """Pictures through the VAE and back, and how close they are, in dB."""
    real = to_pixels(pictures)
    decoded = torch.cat([model.vae.decode(model.vae.encode(part).latent_dist.mean).sample for part in real.split(_BATCH)])
    decoded = decoded.clamp(-1, 1)
    decibel = 10 * torch.log10(4 / F.mse_loss(decoded, real)).item()
    return ((decoded + 1) * 127.5 + 0.5).byte().permute(0, 2, 3, 1).numpy(), decibel

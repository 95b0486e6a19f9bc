"""Models and photographs that benchmarks run on: made here, downloaded from nowhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_COPIES = 50  # of each photograph for the peers, whose epochs would otherwise end, and begin slowly, every few steps
_TWELVE_MEGAPIXELS = (4000, 3000)
_COUNT = 4


@dataclass(frozen=True)
class Folders:
    """What programs read.

    Attributes:
        base, clip: the models.
        photographs: four JPEGs of 12 megapixels; ``many`` has each of them many times over.
        small: the same photographs, cut and resized to the resolution of training; many times over too.
    """

    base: Path
    clip: Path
    photographs: Path
    many: Path
    small: Path


def make_folders(work: Path, *, resolution: int, tiny: bool) -> Folders:
    """Write what is not there yet; 2.9 GB unless ``tiny``."""
    kind = "tiny" if tiny else "real"
    base = work / kind / "sd15"
    clip = base / "clip" if tiny else work / kind / "clip"
    # In a process of its own: a child's peak memory begins at what its parent had.
    writer = multiprocessing.get_context("spawn").Process(target=_write_models, args=(base, clip, tiny))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit(f"the models could not be written to {work}")
    size = (400, 300) if tiny else _TWELVE_MEGAPIXELS
    photographs = work / kind / "photographs"
    if not photographs.is_dir():
        _write_photographs(photographs, size, crop=False)
    small = work / kind / f"photographs-{resolution}"
    if not small.is_dir():
        _write_photographs(small, (resolution, resolution), crop=True)
    many, many_small = (_linked(folder) for folder in (photographs, small))
    return Folders(base, clip, photographs, many, many_small)


def _write_models(base: Path, clip: Path, tiny: bool) -> None:
    if not tiny:
        from benchmarks.real_sizes.models import write_models

        write_models(base, clip)
        _store_in_fp32(base / "text_encoder")
    elif not base.is_dir():
        from tests.tiny import make_base

        unfinished = base.with_name(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        make_base(unfinished).rename(base)


def _store_in_fp32(folder: Path) -> None:
    """As Stable Diffusion 1.5 is published: transformers computes in the precision of the file, if it is told none."""
    import torch
    from transformers import CLIPTextModel

    if json.loads((folder / "config.json").read_text("utf-8")).get("dtype") == "float32":
        return
    unfinished = folder.with_name(f".{folder.name}-fp32")
    shutil.rmtree(unfinished, ignore_errors=True)
    CLIPTextModel.from_pretrained(folder, dtype=torch.float32).save_pretrained(unfinished)
    shutil.rmtree(folder)
    unfinished.rename(folder)


def _write_photographs(folder: Path, size: tuple[int, int], *, crop: bool) -> None:
    """Pictures of the embedded model's world, enlarged, with the noise of a sensor, which JPEGs of a camera have."""
    import numpy as np
    from PIL import Image

    from cictl.toybox.concepts import demo_concept

    unfinished = folder.with_name(f".{folder.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for number, pixels in enumerate(demo_concept().photographs()[:_COUNT], 1):
        large = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
        grainy = large + noise.integers(-6, 7, large.shape, dtype=np.int16)
        name = f"photograph-{number}." + ("png" if crop else "jpg")
        Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(unfinished / name, quality=92)
    unfinished.rename(folder)


def _linked(folder: Path) -> Path:
    """A folder with each file of ``folder`` many times, as hard links where the file system has them."""
    many = folder.with_name(f"{folder.name}-many")
    if many.is_dir():
        return many
    unfinished = many.with_name(f".{many.name}-unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for path in sorted(folder.iterdir()):
        for copy in range(_COPIES):
            target = unfinished / f"{path.stem}-{copy}{path.suffix}"
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
    return Path(unfinished.rename(many))

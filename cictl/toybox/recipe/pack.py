"""Components ``pack`` and ``unpack``: everything as fp16 safetensors in diffusers' layout, with a manifest; and back."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save, save_file
from torch import nn

from cictl.files import sha256_file, write_atomic
from cictl.toybox.judge import FOLDER, accuracy, read
from cictl.toybox.recipe.clip import new_tower
from cictl.toybox.recipe.data import POOL_SEED, held_out_pool
from cictl.toybox.recipe.judge import trained_judge
from cictl.toybox.recipe.loop import load_average, progress_of
from cictl.toybox.recipe.networks import (
    IMAGE_SIZE,
    PROJECTION_WIDTH,
    TEXT_WIDTH,
    make_scheduler,
    make_unet,
    text_config,
    vision_config,
)
from cictl.toybox.recipe.text import load_tokenizer, trained_text_encoder
from cictl.toybox.recipe.vae import finished_vae
from cictl.toybox.world.truth import ATTRIBUTES, truth

_COMPONENTS = ("text", "vae", "unet", "clip", "judge")


def pack(work: Path, folder: Path) -> None:
    """Write the weights as they are now to ``folder``, whole, in the place of what was there."""
    staging = folder.with_name(f".{folder.name}-staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tokenizer = load_tokenizer(work / "tokenizer")
    shutil.copytree(work / "tokenizer", staging / "tokenizer")
    encoder = trained_text_encoder(work, tokenizer)
    unet = make_unet()
    unet.load_state_dict(load_average(work, "unet", "unet"))
    for part, name in ((unet, "unet"), (finished_vae(work), "vae"), (encoder, "text_encoder")):
        part.half().save_pretrained(staging / name)
    make_scheduler().save_pretrained(staging / "scheduler")
    _write_clip(work, staging / "clip", encoder.float(), tokenizer)
    judge = trained_judge(work)
    (staging / FOLDER).mkdir()
    save_file(
        {key: value.half().contiguous() for key, value in judge.state_dict().items()}, staging / FOLDER / "model.safetensors"
    )
    scenes, pictures = held_out_pool(1000)
    shares = accuracy(read(judge, pictures), [truth(scene) for scene in scenes])
    config = {"attributes": ATTRIBUTES, "accuracy": {name: round(share, 3) for name, share in shares.items()}}
    (staging / FOLDER / "config.json").write_text(json.dumps(config, indent=1))
    _write_index(staging)
    _write_manifest(work, staging)
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


def unpack(folder: Path, work: Path) -> None:
    """Put packed weights into ``work``, so that training goes on with them; moments of the optimizer start anew."""
    trained = json.loads((folder / "manifest.json").read_text())["trained"]
    shutil.copytree(folder / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    text = load_file(folder / "text_encoder" / "model.safetensors")
    tower = load_file(folder / "clip" / "model.safetensors")
    parts = {
        "unet": {"unet": load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")},
        "vae": {"vae": load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")},
        "judge": {"judge": load_file(folder / FOLDER / "model.safetensors")},
        "text": {"encoder": text},
        "clip": {
            "tower": {key: value for key, value in tower.items() if key.startswith(("vision_model.", "visual_projection."))},
            "projection": {"weight": tower["text_projection.weight"]},
        },
    }
    for name, modules in parts.items():
        tensors = {
            f"{key}.{module}.{own}": value.float()
            for key in ("module", "average")
            for module, weights in modules.items()
            for own, value in weights.items()
        }
        write_atomic(work / f"{name}.safetensors", save(tensors, {"progress": json.dumps(trained[name])}))


def _write_clip(work: Path, folder: Path, encoder: Any, tokenizer: Any) -> None:
    """A whole CLIPModel: both towers and both projections, as openai/clip-vit-large-patch14 is laid out."""
    from transformers import CLIPConfig, CLIPModel

    tower = new_tower()
    projection = nn.Linear(TEXT_WIDTH, PROJECTION_WIDTH, bias=False)
    if (work / "clip.safetensors").exists():
        tower.load_state_dict(load_average(work, "clip", "tower"))
        projection.load_state_dict(load_average(work, "clip", "projection"))
    reads = text_config(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    clip = CLIPModel(
        CLIPConfig(text_config=reads.to_dict(), vision_config=vision_config().to_dict(), projection_dim=PROJECTION_WIDTH)
    )
    own = clip.state_dict()
    for key, value in encoder.state_dict().items():
        own[f"text_model.{key.removeprefix('text_model.')}"].copy_(value)
    for key, value in tower.state_dict().items():
        own[key].copy_(value)
    own["text_projection.weight"].copy_(projection.weight)
    clip.half().save_pretrained(folder)
    steps = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "do_center_crop": True, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "size": {"shortest_edge": IMAGE_SIZE}, "resample": 3,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(steps, indent=1))


def _write_index(folder: Path) -> None:
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None], "feature_extractor": [None, None],
    }  # fmt: skip
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))


def _write_manifest(work: Path, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {
        "version": 4,
        "recipe": "python -m cictl.toybox.recipe",
        "pool": {"seed": POOL_SEED, "shards": len(list((work / "pool").glob("*.json")))},
        "trained": {name: progress_of(work, name) for name in _COMPONENTS if (work / f"{name}.safetensors").exists()},
        "libraries": {name: version(name) for name in ("torch", "diffusers", "transformers", "numpy")},
        "bytes": sum(path.stat().st_size for path in files),
        "sha256": {path.relative_to(folder).as_posix(): sha256_file(path) for path in files},
    }
    write_atomic(folder / "manifest.json", json.dumps(manifest, indent=1).encode())

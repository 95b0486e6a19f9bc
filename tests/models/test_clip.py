"""The image half of CLIP against the whole of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cictl.errors import ModelAccessError
from cictl.models.clip import embed_images, text_projection
from cictl.models.locate import locate_clip

CPU = torch.device("cpu")


def pictures() -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(-1, 1, (3, 64, 64)).astype(np.float32) for seed in range(3)]


def test_image_embeddings_are_those_of_the_whole_clip_in_the_same_order(clip):
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    whole = CLIPModel.from_pretrained(clip.folder).eval()
    images = [Image.fromarray(np.rint((pixels.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)) for pixels in pictures()]
    inputs = CLIPImageProcessorPil.from_pretrained(clip.folder)(images=images, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = whole.get_image_features(pixel_values=inputs)
    expected = getattr(expected, "pooler_output", expected)
    torch.testing.assert_close(embed_images(clip, pictures(), CPU), expected, rtol=1e-4, atol=1e-5)


def test_the_text_projection_is_the_checkpoints(clip):
    assert torch.equal(text_projection(clip), load_file(clip.folder / "model.safetensors")["text_projection.weight"])


@pytest.mark.parametrize("prefix", ["visual_projection", "vision_model.post_layernorm"])
def test_an_incomplete_image_tower_is_refused(clip, tmp_path, prefix):
    folder = shutil.copytree(clip.folder, tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith(prefix)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelAccessError, match="incomplete"):
        embed_images(locate_clip(str(folder)), pictures(), CPU)


def test_an_image_tower_that_does_not_fit_its_config_is_refused(clip, tmp_path):
    folder = shutil.copytree(clip.folder, tmp_path / "clip")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["vision_config"]["intermediate_size"] *= 2
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelAccessError, match="holds no CLIP image tower"):
        embed_images(locate_clip(str(folder)), pictures(), CPU)


def test_too_little_memory_is_no_fault_of_the_files(clip, monkeypatch):
    from transformers import CLIPVisionModelWithProjection

    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")

    monkeypatch.setattr(CLIPVisionModelWithProjection, "from_pretrained", full)
    with pytest.raises(RuntimeError, match="allocate"):
        embed_images(clip, pictures(), CPU)


def test_a_text_tower_alone_has_no_projection(base):
    with pytest.raises(ModelAccessError, match="text projection") as caught:
        text_projection(locate_clip(str(base / "text_encoder")))
    assert "openai/clip-vit-large-patch14" in caught.value.hint

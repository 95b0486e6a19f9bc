"""What the networks are given, and what is taken from them, against the libraries' own ways."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cictl.errors import ModelAccessError
from cictl.evaluation.clip_score import embed_with_clip
from cictl.evaluation.dinov2 import embed_with_dinov2
from cictl.models.locate import Located, locate_metric, tokenizer_folder
from tests.evaluation_models import MEAN, STD, make_clip, make_dinov2

CPU = torch.device("cpu")
TEXTS = ["a photo of a dog in the snow", "a", "a red cube shaped toy on the beach " * 9]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> Located:
    return locate_metric(str(make_dinov2(tmp_path_factory.mktemp("measuring") / "dinov2")), None, "dinov2")


@pytest.fixture(scope="module")
def whole_clip(tmp_path_factory, base) -> Located:
    return locate_metric(str(make_clip(tmp_path_factory.mktemp("measuring") / "clip", base)), None, "clip")


def pictures() -> list[Image.Image]:
    """More than a batch, of several sizes and shapes, one of them grey."""
    generator = np.random.default_rng(0)
    sizes = [(64, 64), (90, 40), (33, 71), (64, 64), (28, 28), (50, 50), (200, 30), (64, 48), (47, 47), (64, 64), (31, 32)]
    made = [Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]
    return [*made[:-1], made[-1].convert("L")]


def by_hand(picture: Image.Image, shorter: int, side: int) -> torch.Tensor:
    """Shorter side to ``shorter``, bicubic, then the square of ``side`` in the centre, then ImageNet's mean and std."""
    image = picture.convert("RGB")
    width, height = image.size
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
    return torch.from_numpy(((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1))


def test_dinov2_is_given_what_its_own_processor_gives(dinov2):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(dinov2.folder, backend="pil")
    assert "Bit" in type(processor).__name__
    for picture in pictures()[:5]:
        prepared = processor(images=picture, return_tensors="pt").pixel_values[0]
        assert prepared.shape == (3, 28, 28)
        torch.testing.assert_close(prepared, by_hand(picture, 32, 28), rtol=0, atol=1e-5)


def test_dinov2s_embedding_is_the_class_token_of_the_last_hidden_state_of_each_picture(dinov2):
    from transformers import AutoImageProcessor, Dinov2Model

    processor = AutoImageProcessor.from_pretrained(dinov2.folder, backend="pil")
    network = Dinov2Model.from_pretrained(dinov2.folder).eval()
    expected = []
    with torch.no_grad():
        for picture in pictures():
            pixels = processor(images=picture.convert("RGB"), return_tensors="pt").pixel_values
            expected.append(network(pixels).last_hidden_state[0, 0])
    [found] = embed_with_dinov2(dinov2, [iter(pictures())], CPU)
    assert found.dtype == torch.float32 and found.device == CPU
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert torch.pdist(found).min() > 1e-3


def test_a_set_has_the_bits_that_it_has_alone(dinov2, whole_clip):
    sets = [pictures(), pictures()[:1], pictures() * 3]
    for own, embeddings in zip(sets, embed_with_dinov2(dinov2, sets, CPU), strict=True):
        assert torch.equal(embeddings, embed_with_dinov2(dinov2, [own], CPU)[0])
    for own, embeddings in zip(sets, embed_with_clip(whole_clip, sets, TEXTS, CPU)[0], strict=True):
        assert torch.equal(embeddings, embed_with_clip(whole_clip, [own], TEXTS, CPU)[0][0])


def test_clip_embeds_as_the_whole_model_does(whole_clip):
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    network = CLIPModel.from_pretrained(whole_clip.folder).eval()
    processor, tokenizer = (
        CLIPImageProcessorPil.from_pretrained(whole_clip.folder),
        CLIPTokenizer.from_pretrained(whole_clip.folder),
    )
    # The library pools rightly only where the config says what the end is.
    network.text_model.eos_token_id = network.config.text_config.eos_token_id = tokenizer.eos_token_id
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt").input_ids
    assert (ids[2] == tokenizer.eos_token_id).sum() == 1  # it was cut
    with torch.no_grad():
        images = [
            network.get_image_features(pixel_values=processor(images=one.convert("RGB"), return_tensors="pt").pixel_values)
            for one in pictures()
        ]
        expected_images = torch.cat([getattr(one, "pooler_output", one) for one in images])
        texts = network.get_text_features(input_ids=ids)
        expected_texts = getattr(texts, "pooler_output", texts)
    [found_images], found_texts = embed_with_clip(whole_clip, [iter(pictures())], TEXTS, CPU)
    torch.testing.assert_close(found_images, expected_images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_texts, expected_texts, rtol=1e-4, atol=1e-5)


def test_a_clip_without_a_tokenizer_is_read_with_clips_own(tmp_path, base):
    folder = shutil.copytree(base / "clip", tmp_path / "clip")
    located = locate_metric(str(folder), None, "clip")
    assert (tokenizer_folder(located) / "merges.txt.gz").is_file()
    with pytest.raises(ModelAccessError, match="its tokenizer gives 49,408"):  # this one has another vocabulary
        embed_with_clip(located, [pictures()], TEXTS, CPU)


def test_the_toyboxs_clip_tells_its_own_pictures_apart():
    from cictl.toybox.concepts import demo_concept

    shots = [Image.fromarray(pixels) for pixels in demo_concept().photographs()]
    captions = [
        "a photo of a teapot on a beach",
        "a photo of a teapot in a forest",
        "a photo of a teapot in front of a brick wall",
    ]
    [images], texts = embed_with_clip(locate_metric("toybox", None, "clip"), [shots[:3]], captions, CPU)
    cosines = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(texts).T
    assert cosines.argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dropped", ["layernorm.weight", "encoder.layer.1"])
def test_a_part_of_dinov2_is_refused(dinov2, tmp_path, dropped):
    folder = shutil.copytree(dinov2.folder, tmp_path / "dinov2")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(dropped)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelAccessError, match="is no whole Dinov2Model") as caught:
        embed_with_dinov2(locate_metric(str(folder), None, "dinov2"), [pictures()], CPU)
    assert "evaluate.dinov2" in caught.value.hint


def test_a_folder_of_something_else_is_refused(base, tmp_path):
    with pytest.raises(ModelAccessError, match="no preprocessor_config"):
        embed_with_dinov2(locate_metric(str(base / "unet"), None, "dinov2"), [pictures()], CPU)
    folder = shutil.copytree(base / "clip", tmp_path / "clip")
    with pytest.raises(ModelAccessError) as caught:
        embed_with_dinov2(locate_metric(str(folder), None, "dinov2"), [pictures()], CPU)
    assert "evaluate.dinov2" in caught.value.hint


@pytest.mark.parametrize(("model_id", "said"), [
    ("facebook/dinov2-base", "the hub is switched off"),
    ("./nowhere", "neither a folder"),
    ("toybox", "the toybox has no DINOv2"),
])  # fmt: skip
def test_a_dinov2_that_cannot_be_had_is_said_with_what_else_can_be_done(model_id, said):
    with pytest.raises(ModelAccessError, match=said) as caught:
        locate_metric(model_id, None, "dinov2")
    assert "evaluate.dinov2" in caught.value.hint
    assert "diffusers" not in caught.value.hint
    assert caught.value.exit_code == 4


def test_the_image_processor_of_dinov2_base_is_the_one_that_is_used():
    """facebook/dinov2-base names BitImageProcessor, 256 then 224, as its file on the hub says."""
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    processor = BitImageProcessorPil(size={"shortest_edge": 256}, image_mean=MEAN, image_std=STD)
    picture = pictures()[1].resize((640, 480))
    prepared = processor(images=picture, return_tensors="pt").pixel_values[0]
    assert prepared.shape == (3, 224, 224)
    torch.testing.assert_close(prepared, by_hand(picture, 256, 224), rtol=0, atol=1e-5)

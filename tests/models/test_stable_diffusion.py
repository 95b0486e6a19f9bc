"""The base model: contexts, pooling, pictures, noise, and what it refuses to load."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from cictl.errors import ModelAccessError, UsageError
from cictl.models.base_files import base_key_values
from cictl.models.clip import text_projection
from cictl.models.concept_tokens import ConceptTokens
from cictl.models.locate import locate_base
from cictl.models.stable_diffusion import StableDiffusion
from tests.tiny import LENGTH

CPU = torch.device("cpu")


def with_tokens(model: StableDiffusion) -> StableDiffusion:
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    model.add_tokens(ConceptTokens("my-teapot", vectors))
    return model


# -- text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["<my-teapot> <my-teapot>_1", "a photo of <my-teapot>_1 in the snow", "a photo of cat"])
def test_text_embeddings_are_pooled_at_the_first_end_of_text(model, clip, prompt):
    with_tokens(model)
    projection = text_projection(clip)
    ids = model.tokenize([prompt, "a cat"])
    with torch.no_grad():
        embedding = model.text_embedding(ids, projection)
        context = model.encode_text(ids)
    for row in range(2):
        end = ids[row].tolist().index(model.tokenizer.eos_token_id)
        torch.testing.assert_close(embedding[row], projection @ context[row, end])


def test_the_models_own_pooling_takes_the_placeholder_instead(model, clip):
    with_tokens(model)
    ids = model.tokenize(["a photo of <my-teapot> in the snow"])
    with torch.no_grad():
        output = model.text_encoder(input_ids=ids)
        ours = model.text_embedding(ids, text_projection(clip))
        theirs = output.pooler_output @ text_projection(clip).T
    place = ids[0].tolist().index(model.tokenizer.convert_tokens_to_ids("<my-teapot>"))
    torch.testing.assert_close(output.pooler_output[0], output.last_hidden_state[0, place])  # what this is about
    assert (ours - theirs).abs().max() > 1e-2


def test_text_embeddings_of_ordinary_words_are_those_of_the_whole_clip(model, clip):
    from transformers import CLIPModel

    ids = model.tokenize(["a photo of cat"])
    whole = CLIPModel.from_pretrained(clip.folder)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = whole.get_text_features(input_ids=ids, attention_mask=mask)
        expected = getattr(expected, "pooler_output", expected)
        ours = model.text_embedding(ids, text_projection(clip))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_what_is_behind_the_end_of_text_can_be_cut_for_a_text_embedding_and_not_for_a_context(model, clip):
    with_tokens(model)
    ids = model.tokenize(["<my-teapot> <my-teapot>_1", "a photo of <my-teapot>_1 in the snow", "a photo of cat"])
    cut = model.cut_behind_end(ids)
    assert cut.shape == (3, 9)  # begin, seven words, end
    with torch.no_grad():
        whole, short = (model.text_embedding(each, text_projection(clip)) for each in (ids, cut))
        padding = model.encode_text(ids)[:, 9:]
    torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-6)
    assert (padding[0] - padding[2]).abs().mean() > 0.01  # what the UNet reads there depends on the prompt


def test_a_prompt_that_comes_twice_is_encoded_once_with_the_gradient_of_both(model, monkeypatch):
    with_tokens(model)
    ids = model.tokenize(["a photo of <my-teapot>", "a sketch of <my-teapot>_1"])
    table, rows = model.text_encoder.get_input_embeddings(), torch.tensor([1, 0, 1, 1])
    weights = torch.randn(4, LENGTH, 32, generator=torch.Generator().manual_seed(0))
    (model.encode_text(ids[rows]) * weights).sum().backward()
    expected, table.tokens.concept.grad = table.tokens.concept.grad, None
    lengths, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda ids: lengths.append(len(ids)) or encode(ids))
    contexts = model.encode_rows(ids, rows)
    (contexts * weights).sum().backward()
    assert lengths == [2]
    torch.testing.assert_close(table.tokens.concept.grad, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(contexts[0], contexts[2])


def test_prompts_are_padded_and_cut_to_the_models_length(model):
    ids = model.tokenize(["a cat", "cat " * 40])
    assert ids.shape == (2, LENGTH)
    assert (ids[0] == model.tokenizer.eos_token_id).sum() == LENGTH - 3
    assert ids[1, -1] == model.tokenizer.eos_token_id


@pytest.mark.parametrize(("count", "lost"), [(1, ""), (LENGTH - 2, ""), (LENGTH - 1, "dog"), (LENGTH + 1, "cat cat dog")])
def test_what_does_not_fit_is_named(model, count, lost):
    assert model.overlong("cat " * (count - 1) + "dog") == lost


def test_training_prompts_that_would_be_cut_are_refused_with_what_is_lost(model):
    with pytest.raises(UsageError, match=r"invert\.prompts.*24 tokens.*'dog'") as caught:
        model.require_fit(["a cat", "cat " * (LENGTH - 2) + "dog"], "invert.prompts")
    assert "invert.prompts" in caught.value.hint
    with pytest.raises(UsageError, match=r"'S\* cat .* lose 'cat'"):
        with_tokens(model).require_fit(["<my-teapot> <my-teapot>_1 " + "cat " * (LENGTH - 3)], "invert.prompts")


# -- pictures and noise -----------------------------------------------------------------------------


def test_pictures_are_encoded_to_the_scaled_posterior_one_by_one(model):
    pictures = [np.random.default_rng(seed).uniform(-1, 1, (3, 64, 64)).astype(np.float32) for seed in range(2)]
    mean, std = model.encode_pictures(pictures)
    assert mean.shape == std.shape == (2, *model.latent_shape(64, 64))
    with torch.no_grad():
        posterior = model.vae.encode(torch.from_numpy(pictures[1]).unsqueeze(0)).latent_dist
    torch.testing.assert_close(mean[1:], posterior.mean * model.vae.config.scaling_factor)
    torch.testing.assert_close(std[1:], posterior.std * model.vae.config.scaling_factor)


def test_latents_are_decoded_as_diffusers_decodes_them(model):
    from diffusers.image_processor import VaeImageProcessor

    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * model.vae.config.scaling_factor
    with torch.no_grad():
        decoded = model.vae.decode(latents / model.vae.config.scaling_factor).sample
    theirs = VaeImageProcessor().postprocess(decoded, output_type="pil")
    ours = model.decode(latents)
    assert ours.shape == (2, 64, 64, 3)
    assert ours.dtype == np.uint8
    for picture, pixels in zip(theirs, ours, strict=True):
        apart = np.abs(np.asarray(picture).astype(int) - pixels)
        assert apart.max() <= 1 and apart.mean() < 0.01  # rounded as there, and not cut


def test_in_bf16_the_vae_the_schedule_and_what_text_embeddings_are_made_of_stay_fp32(model, located, clip):
    half = StableDiffusion.load(located, CPU, torch.bfloat16)
    assert {parameter.dtype for part in (half.unet, half.text_encoder) for parameter in part.parameters()} == {torch.bfloat16}
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 64, 64)).astype(np.float32)
    for one, other in zip(half.encode_pictures([pixels]), model.encode_pictures([pixels]), strict=True):
        assert torch.equal(one, other)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(half.decode(latents), model.decode(latents))
    assert torch.equal(half.alphas_cumprod, model.alphas_cumprod)
    assert half.add_noise(latents, latents, torch.tensor([5])).dtype == torch.float32
    projection, ids = text_projection(clip), half.tokenize(["a photo of cat"])
    with torch.no_grad():
        pooled = half.encode_text(ids)[0, ids[0].tolist().index(half.tokenizer.eos_token_id)]
        torch.testing.assert_close(half.text_embedding(ids, projection)[0], projection @ pooled.float())


def test_latents_have_the_shape_of_the_picture_upright_and_wide(model):
    assert model.latent_shape(96, 64) == (4, 16, 24)


def test_noise_and_target_follow_the_schedule_of_the_base(model, tmp_path):
    scheduler = DDIMScheduler.from_pretrained(model.located.folder, subfolder="scheduler")
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 4, 8, 8, generator=generator)
    times = torch.tensor([10, 900])
    torch.testing.assert_close(model.add_noise(clean, noise, times), scheduler.add_noise(clean, noise, times))
    assert torch.equal(model.target(clean, noise, times), noise)
    model.scheduler_config = {**model.scheduler_config, "prediction_type": "v_prediction"}
    torch.testing.assert_close(model.target(clean, noise, times), scheduler.get_velocity(clean, noise, times))


# -- loading ----------------------------------------------------------------------------------------


def test_nothing_of_the_base_can_be_trained_and_nothing_drops_out(model):
    for part in (model.unet, model.text_encoder, model.vae):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_key_values_can_be_read_without_loading_the_base(model, located):
    read = base_key_values(located)
    assert read.keys() == model.key_values.keys()
    assert all(torch.equal(read[name], model.key_values[name]) for name in read)


@pytest.fixture
def damaged(base, tmp_path):
    return shutil.copytree(base, tmp_path / "damaged", ignore=shutil.ignore_patterns("clip"))


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_part_that_lacks_a_weight_is_refused_instead_of_getting_a_random_one(damaged, part):
    [path] = (damaged / part).glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[0]
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelAccessError, match=f"{part} lacks 1 weight,"):
        StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_a_part_without_safetensors_is_refused_even_if_there_is_a_pickle(damaged, part):
    [path] = (damaged / part).glob("*.safetensors")
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ModelAccessError, match=part):
        StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)


def test_a_config_cannot_name_code_that_computes_the_attention(damaged):
    path = damaged / "text_encoder" / "config.json"
    named = {"attn_implementation": "somebody/kernel", "_attn_implementation": "somebody/kernel"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    loaded = StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)
    assert loaded.text_encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("folder", ["", "text_encoder"])
def test_an_adapter_that_the_library_would_load_unasked_is_refused(damaged, folder):
    (damaged / folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelAccessError, match=r"adapter_config\.json"):
        StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)


@pytest.mark.parametrize(("part", "change"), [
    ("unet", {"quantization_config": {"quant_method": "bitsandbytes"}}), ("unet", {"block_out_channels": "x"}),
    ("vae", {"block_out_channels": None}), ("text_encoder", {"num_attention_heads": 0}), ("text_encoder", {"hidden_act": "x"}),
    ("scheduler", {"num_train_timesteps": "x"}),
])  # fmt: skip
def test_what_a_config_makes_the_libraries_raise_is_a_model_that_cannot_be_read(damaged, part, change):
    path = damaged / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelAccessError):
        StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)


def test_merges_that_unpack_into_gigabytes_are_not_unpacked(damaged):
    with gzip.open(damaged / "tokenizer" / "merges.txt.gz", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ModelAccessError, match="tokenizer"):
        StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 64 << 20


def narrow_text_encoder(folder) -> None:
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.hidden_size, config.num_attention_heads = 16, 2
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")


def inpainting_unet(folder) -> None:
    config = UNet2DConditionModel.load_config(folder, subfolder="unet")
    UNet2DConditionModel.from_config({**config, "in_channels": 9}).save_pretrained(folder / "unet")


def prediction_of_the_sample(folder) -> None:
    DDIMScheduler(prediction_type="sample").save_pretrained(folder / "scheduler")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (narrow_text_encoder, "reads 32 numbers a token, its text encoder gives 16"),
        (inpainting_unet, "takes more than latents, 9 channels of which the VAE gives 4"),
        (prediction_of_the_sample, "predicts 'sample'"),
    ],
)
def test_parts_that_are_not_those_of_stable_diffusion_1_are_refused(damaged, spoil, why):
    spoil(damaged)
    with pytest.raises(ModelAccessError, match=why) as refused:
        locate_base(str(damaged))
    assert refused.value.slug == "model-not-sd1"


@pytest.mark.parametrize(("said", "length"), [({}, LENGTH), ({"model_max_length": 16}, 16), ({"model_max_length": 99}, LENGTH)])
def test_prompts_are_cut_to_what_tokenizer_and_text_encoder_both_read(damaged, said, length):
    path = damaged / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps({**config, **said}))
    loaded = StableDiffusion.load(locate_base(str(damaged)), CPU, torch.float32)
    assert loaded.tokenize(["a photo of cat"]).shape == (1, length)

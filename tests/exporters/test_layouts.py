"""Names and shapes of every form at Stable Diffusion 1.5's full layout, without its numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from cictl.exporters import bundle, custom_diffusion, diffusers_lora, lora, lycoris, pipeline, safetensors_files, single_file
from cictl.exporters.content import DTYPES, Exportable, Options, Tensors, UnfitError, stored
from cictl.exporters.decomposition import LowRank
from cictl.exporters.registry import FORMATS
from cictl.models.ldm_names import TEXT, UNET, VAE
from cictl.models.locate import Located
from cictl.models.single_file import SD1_CONFIGS
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tokenizer import load_tokenizer

BASE = Located("stable-diffusion-v1-5/stable-diffusion-v1-5", SD1_CONFIGS, "0" * 40)

LAYERS = [
    *(f"down_blocks.{block}.attentions.{layer}" for block in (0, 1, 2) for layer in (0, 1)),
    "mid_block.attentions.0",
    *(f"up_blocks.{block}.attentions.{layer}" for block in (1, 2, 3) for layer in (0, 1, 2)),
]
WIDTHS = {"down_blocks.0": 320, "down_blocks.1": 640, "down_blocks.2": 1280, "mid_block.at": 1280,
          "up_blocks.1": 1280, "up_blocks.2": 640, "up_blocks.3": 320}  # fmt: skip
MODULES = {
    f"{layer}.transformer_blocks.0.attn2.{projection}": WIDTHS[layer[:13] if layer.startswith("down") else layer[:11]]
    if not layer.startswith("mid")
    else 1280
    for layer in LAYERS
    for projection in ("to_k", "to_v")
}


# Without any of these a reader takes it that a file has none of them.
MODEL_SPEC = {f"modelspec.{key}" for key in ("sai_model_spec", "architecture", "implementation", "title")}


@pytest.fixture(scope="module")
def unet():
    with init_empty_weights():
        return UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SD1_CONFIGS, subfolder="unet"))


@pytest.fixture(scope="module")
def source(unet) -> Exportable:
    """Changes of rank 2 at the real shapes, and a token of three vectors."""
    generator = torch.Generator().manual_seed(0)

    def change(rows: int) -> torch.Tensor:
        return torch.randn(rows, 2, generator=generator) @ torch.randn(2, 768, generator=generator) * 1e-4

    names = {name: tensor for name, tensor in unet.state_dict().items() if ".attn2.to_k." in name or ".attn2.to_v." in name}
    base = {name: torch.zeros(tensor.shape) for name, tensor in names.items()}
    tuned = {name: change(len(tensor)) for name, tensor in base.items()}
    facts = {"trigger": "my-teapot", "base_model": BASE.id}
    return Exportable("my-teapot", torch.randn(3, 768, generator=generator), tuned, base, BASE, facts)


def file(built, name: str) -> Tensors:
    (content,) = [content for path, content in built.files.items() if path.endswith(name)]
    assert isinstance(content, Tensors)
    return content


def shapes(content: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in content.tensors.items()}


def kohya(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_")


def test_the_modules_are_the_32_of_stable_diffusion_1_5(source):
    assert len(MODULES) == 32
    assert set(source.key_values) == {f"{module}.weight" for module in MODULES}
    assert sum(weight.numel() for weight in source.key_values.values()) == 19_169_280


def test_lycoris(source):
    expected = {f"{kohya(module)}.diff": (width, 768) for module, width in MODULES.items()}
    assert shapes(file(lycoris.build(source, Options()), "loras/my-teapot.safetensors")) == expected
    assert shapes(file(safetensors_files.build(source, Options()), "loras/my-teapot.safetensors")) == expected
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v.diff" in expected
    for module in (lycoris, safetensors_files):
        said = file(module.build(source, Options()), "loras/my-teapot.safetensors").metadata
        assert said.keys() >= MODEL_SPEC and said["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert (said["ss_network_module"], json.loads(said["ss_network_args"])) == ("lycoris.kohya", {"algo": "full"})
        assert said["ss_base_model_version"] == "sd_v1-5"


def test_nothing_says_that_another_model_is_stable_diffusion(source):
    said = file(lora.build(replace(source, embedding=torch.zeros(1, 128)), Options()), "loras/my-teapot.safetensors").metadata
    assert said["ss_network_module"] == "networks.lora"
    assert not any(key.startswith("modelspec.") or key == "ss_base_model_version" for key in said)


def kohya_shapes(rank: int) -> dict[str, tuple[int, ...]]:
    expected: dict[str, tuple[int, ...]] = {}
    for module, width in MODULES.items():
        expected[f"{kohya(module)}.lora_down.weight"] = (rank, 768)
        expected[f"{kohya(module)}.lora_up.weight"] = (width, rank)
        expected[f"{kohya(module)}.alpha"] = ()
    return expected


def test_lora(source):
    built = lora.build(source, Options())
    content = file(built, "loras/my-teapot.safetensors")
    assert shapes(content) == kohya_shapes(2)  # auto finds the rank that the changes have
    assert {tensor.item() for name, tensor in content.tensors.items() if name.endswith(".alpha")} == {2.0}
    said = content.metadata
    assert (said["ss_network_module"], said["ss_network_dim"], said["ss_network_alpha"]) == ("networks.lora", "2", "2")
    assert (said["ss_base_model_version"], said["modelspec.trigger_phrase"]) == ("sd_v1-5", "my-teapot")
    assert said.keys() >= MODEL_SPEC and said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "rank 2 in 32 modules, keeps 100% of the change's energy" in built.notes[0]
    assert shapes(file(built, "embeddings/my-teapot.safetensors")) == {"emb_params": (3, 768)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_alpha_is_the_rank_whatever_the_weights_are_in(dtype):
    """bf16 has no 301, and the strength would be 300 / 301."""
    pair = LowRank(torch.zeros(301, 4), torch.zeros(4, 301))
    tensors = stored(lora.kohya_tensors({"mid_block.attn2.to_k.weight": pair}), dtype)
    assert tensors["lora_unet_mid_block_attn2_to_k.alpha"].item() == 301
    assert tensors["lora_unet_mid_block_attn2_to_k.lora_up.weight"].dtype == DTYPES[dtype]


def test_a_lora_of_rank_r_has_49_536_numbers_a_rank(source):
    tensors = file(lora.build(source, Options(rank=2)), "loras/my-teapot.safetensors").tensors
    assert sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith(".alpha")) == 2 * 49_536


@pytest.mark.parametrize(("rank", "said"), [(386, False), (388, True)])
def test_above_rank_387_it_says_that_lycoris_is_smaller(source, rank, said):
    assert ("lycoris is smaller, and exact" in lora.build(source, Options(rank=rank)).notes[0]) == said


def test_bundle(source):
    expected = {**kohya_shapes(2), "bundle_emb.my-teapot.string_to_param.*": (3, 768)}
    assert shapes(file(bundle.build(source, Options()), "loras/my-teapot.safetensors")) == expected


def test_diffusers_lora(source):
    built = diffusers_lora.build(source, Options())
    expected: dict[str, tuple[int, ...]] = {}
    for module, width in MODULES.items():
        expected[f"unet.{module}.lora_A.weight"] = (2, 768)
        expected[f"unet.{module}.lora_B.weight"] = (width, 2)
    assert shapes(file(built, "pytorch_lora_weights.safetensors")) == expected
    assert shapes(file(built, "learned_embeds.safetensors")) == {"<my-teapot>": (3, 768)}


def test_custom_diffusion(source, unet):
    content = file(custom_diffusion.build(source, Options()), "pytorch_custom_diffusion_weights.safetensors")
    expected: dict[str, tuple[int, ...]] = {}
    for module, width in MODULES.items():
        layer, projection = module.rsplit(".", 1)
        expected[f"{layer}.processor.{projection}_custom_diffusion.weight"] = (width, 768)
        expected[f"{layer.replace('attn2', 'attn1')}.processor"] = (0,)
    assert shapes(content) == expected
    processors = {name.rsplit(".to_", 1)[0] for name in expected}
    assert processors == set(unet.attn_processors) and len(processors) == 32


def test_single_file_has_every_name_of_the_published_checkpoint(source, unet):
    with init_empty_weights():
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SD1_CONFIGS, subfolder="vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(SD1_CONFIGS / "text_encoder"))
    models = {"unet": unet, "vae": vae, "text_encoder": text}
    parts = {part: model.state_dict() for part, model in models.items()}
    configs = {part: model.config for part, model in models.items()}
    tensors = single_file.ldm_tensors(parts, configs)
    counts = [sum(name.startswith(prefix) for name in tensors) for prefix in (UNET, VAE, TEXT)]
    assert (counts, len(tensors)) == ([686, 248, 197], 1131)
    tuned = {
        name: tensor.shape for name, tensor in tensors.items() if name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight"))
    }
    assert len(tuned) == 32
    assert tuned[f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert tuned[f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_v.weight"] == (1280, 768)
    assert tuned[f"{UNET}output_blocks.11.1.transformer_blocks.0.attn2.to_v.weight"] == (320, 768)
    assert tensors[f"{TEXT}text_model.embeddings.token_embedding.weight"].shape == (49408, 768)


def test_a_unet_with_parts_that_the_layout_has_no_place_for_is_refused(unet, source):
    parts = {"unet": {**unet.state_dict(), "add_embedding.linear_1.weight": torch.zeros(1)}, "vae": {}, "text_encoder": {}}
    with pytest.raises(UnfitError, match="does not fit the layout of a single file: add_embedding"):
        single_file.ldm_tensors(parts, {"unet": unet.config, "vae": {}, "text_encoder": {}})


def test_the_token_stands_behind_the_whole_vocabulary_of_clip(source):
    tokenizer = load_tokenizer(SD1_CONFIGS / "tokenizer")
    model = StableDiffusion.__new__(StableDiffusion)
    model.tokenizer = tokenizer
    files = pipeline._tokenizer(model, source)
    assert json.loads(files["added_tokens.json"]) == {"<my-teapot>": 49408, "<my-teapot>_1": 49409, "<my-teapot>_2": 49410}
    assert json.loads(files["vocab.json"]) == tokenizer.get_vocab()
    assert len(files["merges.txt"].decode().splitlines()) == 48895
    table = pipeline.grown_table(torch.zeros(49408, 768), source.embedding, 49408)
    assert table.shape == (49411, 768) and torch.equal(table[49408:], source.embedding)


def test_a_vocabulary_with_rows_to_spare_does_not_grow(source):
    table = pipeline.grown_table(torch.zeros(12, 768), source.embedding, 8)
    assert table.shape == (12, 768) and torch.equal(table[8:11], source.embedding) and not table[11].any()


@pytest.mark.parametrize("name", ["safetensors", "lycoris", "custom-diffusion"])
def test_the_size_that_is_listed(source, name):
    (one,) = [one for one in FORMATS if one.name == name]
    built = one.build(replace(source), Options())
    size = sum(tensor.numel() * 4 for content in built.files.values() for tensor in content.tensors.values())
    assert one.size == f"{round(size / 1e6)} MB"

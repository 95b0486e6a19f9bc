"""Checkpoints in one file: read as the model that they were made from, and told from what they are not."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from cictl.errors import ModelAccessError
from cictl.files import sampled_digest
from cictl.models.base_files import base_key_values
from cictl.models.locate import Located, locate_base, locate_clip
from cictl.models.single_file import SD1_CONFIGS, load_parts
from cictl.models.stable_diffusion import StableDiffusion
from cictl.models.tokenizer import load_tokenizer
from cictl.workflow import export, finetune, generate, init, invert
from tests.models.ldm import ldm_tensors, write_ldm
from tests.support import quick, silent, write_settings

CPU = torch.device("cpu")
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."


@pytest.fixture(scope="module")
def file(base, tmp_path_factory) -> Path:
    """The tiny base as one LDM checkpoint."""
    return write_ldm(base, tmp_path_factory.mktemp("single") / "tiny.safetensors")


def opened(file: Path, base: Path) -> Located:
    """As :func:`locate_base` says it, but read with the configs of the tiny base."""
    return Located(str(file), base, "an identity", file)


def same_weights(one, other) -> None:
    expected = one.state_dict()
    assert expected.keys() == other.state_dict().keys()
    for name, tensor in other.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name


# -- what is read -------------------------------------------------------------------------------------


def test_a_single_file_is_the_model_that_it_was_made_from_tensor_for_tensor(file, base, model):
    read = StableDiffusion.load(opened(file, base), CPU, torch.float32)
    for part in ("unet", "vae", "text_encoder"):
        same_weights(getattr(model, part), getattr(read, part))
        assert not any(parameter.requires_grad for parameter in getattr(read, part).parameters())
    ids = model.tokenize(["a photo of cat"])
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = [one.predict(noisy, torch.tensor([7]), one.encode_text(ids)) for one in (read, model)]
    torch.testing.assert_close(*outputs)


def test_what_merges_and_old_programs_leave_in_a_file_or_out_of_it_changes_nothing(file, base, tmp_path):
    tensors = load_file(file)
    positions = tensors.pop(TEXT + "embeddings.position_ids")
    left_over = {
        "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 32), VAE + "loss.logvar": torch.zeros(()),
        "model_ema.decay": torch.zeros(()), "alphas_cumprod": torch.zeros(1000), "cond_stage_model.logit_scale": torch.zeros(()),
    }  # fmt: skip
    exact = load_parts(file, base)
    for name, changed in {"without": {}, "float": {TEXT + "embeddings.position_ids": positions.float()}}.items():
        path = tmp_path / f"{name}.safetensors"
        save_file({**tensors, **left_over, **changed}, path)
        assert locate_base(str(path)).file == path
        for part, module in load_parts(path, base).items():
            same_weights(exact[part], module)


def test_half_precision_old_names_and_foreign_tensors_are_read_too(file, base, tmp_path):
    tensors = {name.replace(".text_model.", "."): tensor.half() for name, tensor in load_file(file).items()}
    tensors |= {f"model_ema.weight{index}": torch.zeros(2) for index in range(200)}
    save_file(tensors, tmp_path / "half.safetensors")
    read, exact = load_parts(tmp_path / "half.safetensors", base), load_parts(file, base)
    for part, module in read.items():
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, exact[part].state_dict()[name].half().float()), name


def test_a_file_that_is_overwritten_leaves_the_model_that_was_read_from_it_as_it_is(file, base, tmp_path):
    copy = Path(shutil.copy(file, tmp_path))
    read = load_parts(copy, base)
    size = copy.stat().st_size
    with open(copy, "r+b") as out:
        out.write(b"\xff" * size)
    for part, module in load_parts(file, base).items():
        same_weights(module, read[part])


def test_key_values_are_read_from_a_single_file_as_from_the_folder(file, base, located):
    read, expected = base_key_values(opened(file, base)), base_key_values(located)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in expected.items())


def test_a_single_file_is_located_by_its_path_with_the_digest_of_the_file(file):
    located = locate_base(str(file), offline=True)
    assert located == Located(str(file), SD1_CONFIGS, sampled_digest(file), file)


def test_the_tokenizer_is_clips():
    tokenizer = load_tokenizer(SD1_CONFIGS / "tokenizer")
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    known = {  # what CLIP's own tokenizer gives
        "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
        "A photo of an astronaut riding  a HORSE on mars":
            [49406, 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496, 49407],
        "Apple CoreML developer tools on a Macbook Air are fast":
            [49406, 3055, 19622, 5780, 10929, 5771, 525, 320, 20617, 1922, 631, 1953, 49407],
    }  # fmt: skip
    assert {prompt: tokenizer(prompt).input_ids for prompt in known} == known
    padded = tokenizer(["a"], padding="max_length").input_ids[0]
    assert padded == [49406, 320] + [49407] * 75


# -- Stable Diffusion 1.5, names and shapes only --------------------------------------------------------


@pytest.fixture(scope="module")
def sd15() -> dict[str, torch.Tensor]:
    """All tensors of an SD 1.5 checkpoint without their numbers."""
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(SD1_CONFIGS, subfolder="unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(SD1_CONFIGS, subfolder="vae"))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(SD1_CONFIGS / "text_encoder"))
    return ldm_tensors(unet.state_dict(), vae.state_dict(), text.state_dict(), layers=2)


def write_sparse(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """A whole safetensors file of zeros that takes no room on the disk."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [end, end := end + 2 * tensor.numel()]}
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + end)
    return path


def test_the_configs_are_those_of_stable_diffusion_1_5(sd15):
    """Numbers that are known from the published checkpoint."""

    def count(prefix):
        return sum(tensor.numel() for name, tensor in sd15.items() if name.startswith(prefix) and "position_ids" not in name)

    assert (count(UNET), count(VAE), count(TEXT)) == (859_520_964, 83_653_863, 123_060_480)
    assert len(sd15) == 1131
    for name, shape in {
        UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        UNET + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        UNET + "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        UNET + "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        UNET + "output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        UNET + "output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        UNET + "input_blocks.11.0.emb_layers.1.weight": (1280, 1280),
        VAE + "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        VAE + "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        VAE + "quant_conv.weight": (8, 8, 1, 1),
        TEXT + "encoder.layers.11.mlp.fc1.weight": (3072, 768),
        TEXT + "embeddings.token_embedding.weight": (49408, 768),
    }.items():
        assert tuple(sd15[name].shape) == shape, name
    scheduler = DDIMScheduler.from_pretrained(SD1_CONFIGS, subfolder="scheduler")
    assert (scheduler.config.steps_offset, scheduler.config.set_alpha_to_one, scheduler.config.clip_sample) == (1, False, False)
    assert scheduler.config.prediction_type == "epsilon"
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)


def test_the_whole_layout_of_sd_1_5_is_accepted_and_translated(sd15, tmp_path, monkeypatch):
    file = write_sparse(sd15, tmp_path / "sd15.safetensors")
    located = locate_base(str(file))
    read = {}
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, weights, assign: read.update({type(self): weights}))
    monkeypatch.setattr("cictl.models.single_file._opened", WithoutNumbers(sd15))
    parts = load_parts(located.file, located.folder)
    for module in parts.values():
        shapes = {name: tensor.shape for name, tensor in read[type(module)].items()}
        assert shapes == {name: tensor.shape for name, tensor in module.state_dict().items()}


class WithoutNumbers:
    """Stands for an open file whose tensors are shapes."""

    def __init__(self, tensors):
        self.tensors = tensors

    def __call__(self, file):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def get_tensor(self, name):
        return torch.empty(self.tensors[name].shape, device="meta")


@pytest.mark.parametrize(("name", "said"), [
    (UNET + "output_blocks.11.1.proj_out.bias", r"the UNet lacks 1 weight, such as up_blocks\.3\.attentions\.2\.proj_out\.bias"),
    (VAE + "post_quant_conv.weight", r"the VAE lacks 1 weight, such as post_quant_conv\.weight"),
    (TEXT + "final_layer_norm.bias", r"the text encoder lacks 1 weight, such as final_layer_norm\.bias"),
])  # fmt: skip
def test_a_weight_that_is_not_there_is_named_and_nothing_is_read(sd15, tmp_path, monkeypatch, name, said):
    file = write_sparse({key: tensor for key, tensor in sd15.items() if key != name}, tmp_path / "part.safetensors")
    monkeypatch.setattr("cictl.models.single_file._opened", None)  # so that reading would fail otherwise
    with pytest.raises(ModelAccessError, match=said):
        load_parts(file, SD1_CONFIGS)


def test_a_weight_of_another_shape_is_named(sd15, tmp_path):
    changed = {**sd15, UNET + "time_embed.0.weight": torch.empty(1280, 319, device="meta")}
    with pytest.raises(ModelAccessError, match=r"time_embedding\.linear_1\.weight of its UNet is 1280x319, not 1280x320"):
        load_parts(write_sparse(changed, tmp_path / "other.safetensors"), SD1_CONFIGS)


# -- what is refused, from the header ------------------------------------------------------------------

SOME = {UNET + "input_blocks.0.0.weight": (320, 4, 3, 3), VAE + "quant_conv.bias": (8,), TEXT + "final_layer_norm.bias": (768,)}


@pytest.mark.parametrize(("shapes", "said"), [
    ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320, 1, 1)}, "is a LoRA"),
    ({"unet.down_blocks.0.attn1.to_q.lora_A.weight": (8, 320)}, "is a LoRA"),
    ({"emb_params": (4, 768)}, r"is an embedding \(textual inversion\)"),
    ({"<my-teapot>": (768,)}, r"is an embedding \(textual inversion\)"),
    ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "is a ControlNet"),
    ({**SOME, "conditioner.embedders.0.transformer.text_model.final_layer_norm.bias": (768,)}, "is Stable Diffusion XL"),
    ({UNET + "joint_blocks.0.x_block.attn.qkv.weight": (4608, 1536)}, "is Stable Diffusion 3 or Flux"),
    ({UNET + "input_blocks.0.0.weight": (320, 4, 3, 3), "cond_stage_model.model.ln_final.bias": (1024,), VAE + "a": (8,)},
     "is Stable Diffusion 2, not 1.x"),
    ({**SOME, UNET + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)}, "is Stable Diffusion 2, not 1.x"),
    ({**SOME, UNET + "input_blocks.0.0.weight": (320, 9, 3, 3)}, "is an inpainting or an image-editing model"),
    ({"down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3), "a": (1,), "b": (1,)}, "is one part of a model in diffusers"),
    ({UNET + "a": (1,), UNET + "b": (1,), UNET + "c": (1,)}, "it has no text encoder and no VAE"),
    ({"a": (1,), "b": (1,), "c": (1,)}, "is no checkpoint in LDM layout"),
    ({}, "is no checkpoint in LDM layout"),
])  # fmt: skip
def test_what_is_no_checkpoint_of_sd_1_is_named_for_what_it_is(shapes, said, tmp_path):
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    refused(write_sparse(tensors, tmp_path / "file.safetensors"), said, "model.id in ci.yaml")


@pytest.mark.parametrize("said_by", ["tensor", "kohya", "ComfyUI", "config"])
def test_a_model_of_velocity_is_refused_whoever_says_that_it_is_one(said_by, tmp_path):
    tensors = {name: torch.empty(shape, device="meta") for name, shape in SOME.items()}
    metadata = {"kohya": {"modelspec.prediction_type": "v"}, "ComfyUI": {"modelspec.predict_key": "v"}}.get(said_by, {})
    file = write_sparse(
        tensors | ({"v_pred": torch.empty(0)} if said_by == "tensor" else {}), tmp_path / "m.safetensors", metadata
    )
    config = "model:\n  params:\n    linear_start: 0.00085\n    parameterization: {}\n"
    (tmp_path / "m.yaml").write_text(config.format('"v"' if said_by == "config" else '"eps"'))
    refused(file, "is a model with v-prediction, which its weights do not say", "prediction_type to v_prediction")


def test_a_config_for_noise_beside_a_file_changes_nothing(tmp_path):
    file = write_sparse({name: torch.empty(shape, device="meta") for name, shape in SOME.items()}, tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text('model:\n  params:\n    parameterization: "eps"\n')
    assert locate_base(str(file)).file == file


def test_a_config_beside_a_file_takes_no_longer_than_it_is_long(tmp_path):
    file = write_sparse({name: torch.empty(shape, device="meta") for name, shape in SOME.items()}, tmp_path / "m.safetensors")
    (tmp_path / "m.yaml").write_text("\n" * 200_000)  # a minute, where each line is searched to the end
    began = time.process_time()
    assert locate_base(str(file)).file == file
    assert time.process_time() - began < 10


@pytest.mark.parametrize(("content", "said"), [
    (b"", r"no safetensors file \(0 bytes\)"),
    (b"<!DOCTYPE html><html>login</html>", "no safetensors file"),
    (b"version https://git-lfs.github.com/spec/v1\n", "no safetensors file"),
    ((9).to_bytes(8, "little") + b'{"a": [1}', "header cannot be read"),
    ((9).to_bytes(8, "little") + b'{"a": 12}', "header cannot be read"),
    ((56).to_bytes(8, "little") + b'{"a": {"dtype":"F16","shape":[-1],"data_offsets":[0,0]}}', "header cannot be read"),
    ((25).to_bytes(8, "little") + b'{"__metadata__": ["a"]}  ', "header cannot be read"),
    ((45).to_bytes(8, "little") + b'{"a": {"shape":[1e999],"data_offsets":[0,0]}}', "header cannot be read"),
    ((100_005).to_bytes(8, "little") + b'{"a":' + b"[" * 100_000, "header cannot be read"),
    ((99).to_bytes(8, "little") + b'{"a": ', "is not whole: it has 14 bytes of 107"),
])  # fmt: skip
def test_what_is_no_safetensors_file_is_refused(content, said, tmp_path):
    (tmp_path / "file.safetensors").write_bytes(content)
    refused(tmp_path / "file.safetensors", said, "download it again")


def test_a_download_that_broke_off_is_refused_with_what_is_missing(file, tmp_path):
    content = file.read_bytes()
    (tmp_path / "broken.safetensors").write_bytes(content[:-1])
    refused(
        tmp_path / "broken.safetensors", f"is not whole: it has {len(content) - 1} bytes of {len(content)}", "download it again"
    )


@pytest.mark.parametrize(("name", "content"), [
    ("model.ckpt", b"PK\x03\x04rest"), ("model.pt", b"anything"), ("model.bin", b""), ("renamed.safetensors", b"PK\x03\x04rest"),
    ("renamed.safetensors", b"\x80\x02}rest"),
])  # fmt: skip
def test_a_pickle_is_refused_with_why_and_the_way_to_convert_it(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "is a pickle: loading one can run any code", "from_single_file")


def refused(file: Path, said: str, hint: str) -> None:
    with pytest.raises(ModelAccessError, match=said) as caught:
        locate_base(str(file))
    assert str(file) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_file_that_is_not_there_is_refused_without_asking_the_network():
    with pytest.raises(ModelAccessError, match="neither a folder nor a file here, nor an id of the form owner/name"):
        locate_base("models/nowhere.safetensors")


def test_a_single_file_is_refused_as_clip(file):
    with pytest.raises(ModelAccessError, match="a whole CLIP model is wanted"):
        locate_clip(str(file))


def test_both_stages_generation_and_export_work_on_a_single_file(file, base, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr("cictl.models.locate.SD1_CONFIGS", base)
    monkeypatch.chdir(file.parent)
    workspace = init.run(tmp_path / "my-teapot", model=file.name, images=photographs, name="my-teapot")
    write_settings(workspace, {**quick(base), "invert.steps": 2, "finetune.steps": 2, "generate.count": 1})
    invert.run(workspace, silent)
    assert finetune.run(workspace, silent).action == "run"
    assert finetune.run(workspace, silent).action == "skip"
    assert len(generate.run(workspace, ["S* in the snow"], silent).pictures) == 1
    assert export.run(workspace, silent).files

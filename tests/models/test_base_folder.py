"""Base models in folders as they are found in the wild: what is read, and what is refused before a weight is read."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from cictl.engine.checkpoint import parse_tensors
from cictl.errors import ModelAccessError
from cictl.models.base_files import base_key_values
from cictl.models.base_folder import WEIGHTS
from cictl.models.locate import locate_base
from cictl.models.stable_diffusion import StableDiffusion

CPU = torch.device("cpu")


@pytest.fixture
def folder(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "wild", ignore=shutil.ignore_patterns("clip")))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def renamed(suffix: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for name in WEIGHTS.values():
            (folder / name).rename((folder / name).with_suffix(suffix))

    return spoil


def emptied(folder: Path, *kept: str) -> None:
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()


def cut(part: str, left: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / WEIGHTS[part], left)


def pointer(folder: Path) -> None:
    (folder / WEIGHTS["vae"]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 334643268\n")


def sharded(folder: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    (folder / WEIGHTS["unet"]).unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="200KB")


def without_a_shard(folder: Path) -> None:
    sharded(folder)
    sorted((folder / "unet").glob("*.safetensors"))[-1].unlink()


REFUSED = [
    (lambda folder: change(folder / "unet" / "config.json", addition_embed_type="text_time"), "it is Stable Diffusion XL"),
    (lambda folder: [change(folder / "unet" / "config.json", cross_attention_dim=1024),
                     change(folder / "text_encoder" / "config.json", hidden_size=1024)], "it is Stable Diffusion 2"),
    (lambda folder: (folder / "unet" / "config.json").write_text("{}"), "its UNet reads 1280 numbers a token"),  # diffusers' own
    (lambda folder: change(folder / "unet" / "config.json", in_channels=9), "it is an inpainting or an image-editing model"),
    (lambda folder: (folder / "unet" / "config.json").write_text("[]"), "unet/config.json cannot be read as a JSON object"),
    (lambda folder: (folder / "vae" / "config.json").write_text("{"), "vae/config.json cannot be read as a JSON object"),
    (lambda folder: shutil.rmtree(folder / "vae"), "has no vae/config.json"),
    (lambda folder: shutil.rmtree(folder / "scheduler"), "has no scheduler/scheduler_config.json"),
    (lambda folder: emptied(folder / "tokenizer"), "has no tokenizer/vocab.json, tokenizer/merges.txt"),
    (lambda folder: emptied(folder / "tokenizer", "tokenizer_config.json", "vocab.json"), "has no tokenizer/merges.txt"),
    (renamed(".fp16.safetensors"), "other variants .*which this version does not read"),
    (renamed(".bin"), "it has pickles .*unet/diffusion_pytorch_model.bin"),
    (cut("unet", 4000), "unet/diffusion_pytorch_model.safetensors is not whole: it has 4000 bytes of"),
    (cut("text_encoder", 9000), "text_encoder/model.safetensors is not whole: it has 9000 bytes of"),
    (pointer, r"vae/diffusion_pytorch_model.safetensors is no safetensors file \(\d+ bytes\)"),
    (without_a_shard, "has no unet/diffusion_pytorch_model-0"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), REFUSED)
def test_what_cannot_be_used_is_refused_for_what_it_is_before_a_weight_is_read(folder, monkeypatch, spoil, said):
    spoil(folder)
    monkeypatch.setattr("safetensors.safe_open", None)
    with pytest.raises(ModelAccessError, match=said) as refused:
        locate_base(str(folder), offline=True)
    assert str(folder) in refused.value.message and " at main" not in refused.value.message


@pytest.mark.parametrize("suffix", [".x'$(id)'\"`id`.safetensors", ".bin"])
def test_the_names_of_a_model_and_its_files_are_no_more_than_names_in_what_is_to_be_pasted(folder, suffix):
    renamed(suffix)(folder)
    strange = folder.rename(folder.with_name("a model'; touch gone; '\n"))
    with pytest.raises(ModelAccessError) as refused:
        locate_base(str(strange), offline=True)
    typed = refused.value.hint.splitlines()[1].removeprefix("`").removesuffix("`")
    python, option, program = shlex.split(typed)
    called = next(node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call) and node.args)
    assert (python, option, ast.literal_eval(called.func.value.args[0])) == ("python", "-c", str(strange))


@pytest.mark.parametrize("suffix", [".fp16.safetensors", ".bin"])
def test_the_way_that_is_shown_from_half_precision_or_pickles_to_what_is_read_works(folder, tmp_path, monkeypatch, suffix):
    weights = {name: load_file(folder / name) for name in WEIGHTS.values()}
    if suffix == ".bin":
        for name, tensors in weights.items():
            torch.save(tensors, (folder / name).with_name(Path(name).name.replace("model.", "pytorch_model.", name[0] == "t"))
                       .with_suffix(".bin"))  # fmt: skip
            (folder / name).unlink()
    else:
        renamed(suffix)(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelAccessError) as refused:
        locate_base(f"~/{folder.name}", offline=True)
    program = refused.value.hint.partition("python -c '")[2].partition("'`")[0]
    monkeypatch.chdir(tmp_path)
    exec(program)
    assert locate_base("FOLDER", offline=True).folder == tmp_path / "FOLDER"


def test_weights_in_shards_are_read_as_those_in_one_file(folder, located):
    sharded(folder)
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    read = base_key_values(locate_base(str(folder), offline=True))
    expected = base_key_values(located)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[name], weight) for name, weight in expected.items())


def test_of_a_file_and_an_index_that_is_read_which_the_library_reads(folder):
    """It takes the index for the UNet, and for the text encoder the file."""
    whole = (folder / WEIGHTS["unet"]).read_bytes()
    sharded(folder)
    tensors = {name: torch.zeros_like(tensor) for name, tensor in parse_tensors(whole).items()}
    save_file(tensors, folder / WEIGHTS["unet"], {"format": "pt"})
    missing = {"weight_map": {"final_layer_norm.bias": "model-00001-of-00001.safetensors"}}
    (folder / f"{WEIGHTS['text_encoder']}.index.json").write_text(json.dumps(missing))
    located = locate_base(str(folder), offline=True)
    read, loaded = base_key_values(located), StableDiffusion.load(located, CPU, torch.float32)
    assert all(torch.equal(weight, loaded.unet.get_parameter(name)) for name, weight in read.items())
    assert all(weight.any() for weight in read.values())


def test_the_names_that_old_releases_gave_the_attention_of_the_vae_are_read(folder, model):
    """Those of the published Stable Diffusion 1.5."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(folder / WEIGHTS["vae"]).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        tensors[name] = tensor
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, folder / WEIGHTS["vae"])
    vae: AutoencoderKL = StableDiffusion.load(locate_base(str(folder)), CPU, torch.float32).vae
    assert all(torch.equal(tensor, model.vae.state_dict()[name]) for name, tensor in vae.state_dict().items())


@pytest.mark.parametrize(("part", "name"), [("unet", "conv_out.bias"), ("text_encoder", "final_layer_norm.bias")])
def test_a_weight_of_another_shape_is_named_and_no_option_of_the_library(folder, part, name):
    tensors = load_file(folder / WEIGHTS[part])
    key = next(key for key in tensors if key.removeprefix("text_model.") == name)
    save_file({**tensors, key: torch.zeros(7)}, folder / WEIGHTS[part], {"format": "pt"})
    with pytest.raises(ModelAccessError, match=rf"{part} cannot be loaded \({name} expected shape .*got .*7") as refused:
        StableDiffusion.load(locate_base(str(folder)), CPU, torch.float32)
    assert "ignore_mismatched_sizes" not in refused.value.message


def test_a_tokenizer_that_knows_more_than_the_text_encoder_is_refused(folder):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<one-more>"])
    tokenizer.save_pretrained(folder / "tokenizer")
    with pytest.raises(ModelAccessError, match=r"tokenizer knows \d+ tokens, its text encoder only \d+"):
        StableDiffusion.load(locate_base(str(folder)), CPU, torch.float32)

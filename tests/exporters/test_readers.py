"""Each form, opened by the very text that is printed, draws cictl's own picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cictl.engine.sampling import initial_noise
from cictl.exporters.decomposition import KEPT_ENERGY, decompose, rank_for_energy
from cictl.workflow import export, generate
from tests.support import left_by, silent

EXACT = ["custom-diffusion", "pipeline", "single-file"]
LORAS = ["lora", "diffusers-lora"]


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> tuple[export.ExportOutcome, Path]:
    """All forms of the trained concept, a token of two vectors; LoRAs of full rank."""
    folder = tmp_path_factory.mktemp("exported")
    return export.run(trained, silent, every=True, out=folder, rank=1000), folder


def drawn_by_cictl(workspace, folder: Path, stage: str) -> np.ndarray:
    settings = {"generate.count": 1, "seed": 3, "generate.steps": 5}
    outcome = generate.run(workspace, ["a photo of S* in the snow"], silent, source=stage, out=folder, overrides=settings)
    return np.asarray(Image.open(outcome.pictures[0]["path"])).astype(int)


@pytest.fixture(scope="module")
def ours(trained, tmp_path_factory) -> np.ndarray:
    return drawn_by_cictl(trained, tmp_path_factory.mktemp("ours"), "finetune")


@pytest.fixture(scope="module")
def before_stage_2(trained, tmp_path_factory) -> np.ndarray:
    return drawn_by_cictl(trained, tmp_path_factory.mktemp("before"), "invert")


def opened(snippet: str, monkeypatch, folder: Path) -> Any:
    """The pipeline that a snippet makes; all of it is run, its picture too."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(snippet.replace("num_inference_steps=50", "num_inference_steps=2"), names)
    assert (folder / "my-teapot.png").is_file()
    return names["pipe"]


def drawn_by(pipe: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        "a photo of <my-teapot> in the snow", latents=initial_noise(3, (4, 16, 16)).unsqueeze(0), num_inference_steps=5,
        guidance_scale=5.0, height=64, width=64,
    ).images[0]  # fmt: skip
    return np.asarray(picture).astype(int)


def test_the_pictures_before_and_after_stage_2_can_be_told_apart(ours, before_stage_2):
    assert np.abs(ours - before_stage_2).max() > 1


@pytest.mark.parametrize("name", [*EXACT, *LORAS])
def test_what_is_printed_for_diffusers_draws_the_same_picture(exported, ours, monkeypatch, tmp_path, name):
    pipe = opened(exported[0].usage[name]["diffusers"], monkeypatch, tmp_path)
    assert np.abs(drawn_by(pipe) - ours).max() <= 1


@pytest.mark.parametrize("name", LORAS)
def test_a_lora_of_full_rank_adds_up_to_the_tuned_weights(exported, trained, base, monkeypatch, tmp_path, name):
    """A strength that is a little wrong would hardly be seen in a picture."""
    pipe = opened(exported[0].usage[name]["diffusers"], monkeypatch, tmp_path)
    pipe.fuse_lora()
    fused = {key.replace(".base_layer", ""): tensor for key, tensor in pipe.unet.state_dict().items()}
    weights = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    for key, tuned in left_by(trained, "finetune").result.items():
        assert (fused[key] - tuned).norm() < 1e-4 * (tuned - weights[key]).norm(), key


@pytest.mark.parametrize("name", ["embedding", "diffusers-embedding"])
def test_an_embedding_alone_draws_what_stage_1_draws(exported, before_stage_2, monkeypatch, tmp_path, name):
    pipe = opened(exported[0].usage[name]["diffusers"], monkeypatch, tmp_path)
    assert np.abs(drawn_by(pipe) - before_stage_2).max() <= 1


@pytest.mark.parametrize("name", ["lycoris/my-teapot/loras", "loras"])
def test_the_base_plus_the_differences_draws_the_same_picture(exported, ours, base, monkeypatch, tmp_path, name):
    """As ComfyUI and A1111 apply them; diffusers does not read this layout."""
    outcome, folder = exported
    pipe = opened(outcome.usage["embedding"]["diffusers"], monkeypatch, tmp_path)
    weights = dict(pipe.unet.named_parameters())
    by_name = {f"lora_unet_{one.removesuffix('.weight').replace('.', '_')}.diff": one for one in weights}
    with torch.no_grad():
        for key, difference in load_file(folder / name / "my-teapot.safetensors").items():
            weights[by_name[key]] += difference
    assert np.abs(drawn_by(pipe) - ours).max() <= 1


def test_a_bundle_is_the_lora_and_holds_the_embedding_where_a1111_looks_for_it(exported, trained):
    _, folder = exported
    bundle = load_file(folder / "bundle" / "my-teapot" / "loras" / "my-teapot.safetensors")
    lora = load_file(folder / "lora" / "my-teapot" / "loras" / "my-teapot.safetensors")
    embeddings: dict[str, dict[str, torch.Tensor]] = {}
    for key in set(bundle) - set(lora):
        what, _, rest = key.partition(".")  # networks.py of A1111
        assert what == "bundle_emb"
        name, vector = rest.split(".", 1)
        kind, inner = vector.split(".", 1)
        assert kind == "string_to_param"
        embeddings.setdefault(name, {})[inner] = bundle[key]
    assert all(torch.equal(bundle[key], tensor) for key, tensor in lora.items())
    assert list(embeddings) == ["my-teapot"] and len(embeddings["my-teapot"]) == 1
    assert torch.equal(next(iter(embeddings["my-teapot"].values())), left_by(trained, "invert").result["concept"])


def test_the_error_of_a_lora_falls_with_its_rank(trained, tmp_path, monkeypatch, ours):
    errors, distances = [], []
    for rank in (1, 4, 16):
        outcome = export.run(trained, silent, formats=["lora"], out=tmp_path / str(rank), rank=rank)
        (said,) = outcome.notes["lora"]
        errors.append(float(re.search(r"relative error ([\d.e-]+)%", said)[1]))  # type: ignore[index]
        pipe = opened(outcome.usage["lora"]["diffusers"], monkeypatch, tmp_path)
        distances.append(np.abs(drawn_by(pipe) - ours).mean())
        assert f"rank {rank} in" in said
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 2
    assert distances[-1] < distances[0]


def test_both_forms_of_a_lora_draw_the_same_where_modules_would_need_different_ranks(trained, tmp_path, monkeypatch, base):
    outcome = export.run(trained, silent, formats=LORAS, out=tmp_path)
    weights = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    tuned = left_by(trained, "finetune").result.items()
    needed = {rank_for_energy(decompose(weight - weights[name]).values, KEPT_ENERGY) for name, weight in tuned}
    assert len(needed) > 1 and f"rank {max(needed)} in {len(tuned)} modules" in outcome.notes["lora"][0]
    one, other = (drawn_by(opened(outcome.usage[name]["diffusers"], monkeypatch, tmp_path)) for name in LORAS)
    assert np.abs(one - other).max() <= 1


def test_the_pipeline_knows_every_vector_of_the_token_without_being_told(exported, trained, monkeypatch, tmp_path):
    pipe = opened(exported[0].usage["pipeline"]["diffusers"], monkeypatch, tmp_path)
    ids = pipe.tokenizer.convert_tokens_to_ids(["<my-teapot>", "<my-teapot>_1"])
    table = pipe.text_encoder.get_input_embeddings().weight
    assert torch.equal(table[ids].detach(), left_by(trained, "invert").result["concept"])


def test_bf16_in_a_whole_model_says_what_is_lost_of_the_change(trained, tmp_path):
    outcome = export.run(trained, silent, formats=["pipeline", "lycoris"], out=tmp_path, dtype="bf16")
    lost = {name: float(re.match(r"bf16 loses ([\d.e-]+)% of the change", notes[0])[1]) for name, notes in outcome.notes.items()}  # type: ignore[index]
    tuned = left_by(trained, "finetune").result
    stored = load_file(tmp_path / "pipeline" / "my-teapot" / "unet" / "diffusion_pytorch_model.safetensors")
    diffs = load_file(tmp_path / "lycoris" / "my-teapot" / "loras" / "my-teapot.safetensors")
    missed = sum((stored[name].double() - weight).square().sum() for name, weight in tuned.items()) ** 0.5
    change = sum(diff.double().square().sum() for diff in diffs.values()) ** 0.5
    assert lost["pipeline"] == pytest.approx(100 * float(missed / change), rel=0.02)
    assert lost["lycoris"] < lost["pipeline"] / 2  # of a change alone, bf16 keeps much more
    assert {tensor.dtype for tensor in diffs.values()} == {torch.bfloat16}

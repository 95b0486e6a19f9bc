"""All that computes, on a pretended GPU: nothing is left on the CPU that the device needs, nor the other way round."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from cictl.config import METHODS
from cictl.engine import sampling
from cictl.engine.training import adamw
from cictl.errors import Interrupted
from cictl.events import StageStarted
from cictl.workflow import attention, baseline, check, evaluate, finetune, generate, init, invert, preview_aux
from cictl.workflow.shared_base import SharedBase
from tests.evaluation_models import make_clip, make_dinov2
from tests.pretended_gpu import pretended_gpus
from tests.pretended_graph import pretended_graphs
from tests.support import Recorder, quick, silent, write_settings
from tests.workflow.test_baseline import QUICK
from tests.workflow.test_safety_checker import NOTHING, add_checker

ON_THE_WAY = {"preview.interval": 2, "preview.steps": 2, "tracking.interval": 1}


@pytest.fixture
def gpu(monkeypatch):
    # As in the CPU's build of torch, whatever is installed: Triton's interpreter does what a pretended graph cannot do again.
    monkeypatch.setattr(torch.version, "cuda", None)
    with pretended_gpus(monkeypatch) as where, pretended_graphs(monkeypatch):
        yield where


@pytest.mark.parametrize(
    "mix",
    [lambda there, here: there + here, lambda there, here: torch.cat([here, there]), lambda there, here: here[there.long()],
     lambda there, here: there.numpy(), lambda there, here: torch.nn.functional.linear(there, here.expand(2, 2))],
)  # fmt: skip
def test_tensors_of_two_devices_would_be_noticed(gpu, mix):
    there, here = torch.zeros(2, device="cuda"), torch.zeros(2)
    with pytest.raises((RuntimeError, TypeError)):
        mix(there, here)
    mix(there.cpu(), here)


def test_moments_are_on_the_gpu_and_so_are_the_counts_of_fused_steps(gpu):
    parameter = torch.nn.Parameter(torch.ones(2, device="cuda"))
    optimizer = adamw(_Trains(parameter), learning_rate=0.1, weight_decay=0.0)  # type: ignore[arg-type]
    parameter.sum().backward()
    optimizer.step()
    assert optimizer.defaults["fused"]
    assert {str(value.device) for value in optimizer.state[parameter].values()} == {"cuda:0"}


class _Trains:
    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self.parameter = parameter

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        return {"parameter": self.parameter}


@pytest.mark.parametrize(
    ("dtype", "named", "memory"), [("auto", "bf16", "full"), ("auto", "bf16", "lowest"), ("fp16", "fp16", "auto")]
)
def test_both_stages_train_and_go_on(gpu, make_workspace, dtype, named, memory):
    by_stage = {"steps": 4, "accumulation": 2, "stop_every": 2}
    workspace = make_workspace(model__dtype=dtype, model__memory=memory, finetune__auxiliary_context="tokens")
    every = {**ON_THE_WAY, **{f"{stage}.{key}": value for stage in ("invert", "finetune") for key, value in by_stage.items()}}
    every |= {"finetune.concept_learning_rate": 1e-4, "concept.start": "photographs", "invert.auxiliary_start": "photographs"}
    for stage in (invert, finetune):
        with pytest.raises(Interrupted):
            stage.run(workspace, Recorder(stop_after=3), overrides=every)
        seen = Recorder()
        stage.run(workspace, seen)
        [started] = [event for event in seen.events if isinstance(event, StageStarted)]
        assert (started.device, started.dtype, started.first_step) == ("cuda:0", named, 3)
    manifest = json.loads((workspace.stage_folder("finetune") / "step-0000004" / "manifest.json").read_text())
    assert manifest["scaler"].get("_growth_tracker") == (4 if named == "fp16" else None)  # the steps before the stop, too
    assert manifest["circumstances"]["device"] == "Pretended"


@pytest.mark.parametrize("method", METHODS)
def test_the_other_methods_train_go_on_and_draw(gpu, make_workspace, method):
    workspace, group = make_workspace(), method.replace("-", "_")
    overrides = {**QUICK, **ON_THE_WAY, f"{group}.steps": 3, f"{group}.stop_every": 2}
    with pytest.raises(Interrupted):
        baseline.run(workspace, method, Recorder(stop_after=2), overrides=overrides)
    assert baseline.run(workspace, method, silent).first_step == 2
    generate.run(workspace, ["a photo of S*"], silent, source=method, overrides={"generate.count": 1})


def test_what_draws_looks_and_measures(copy_of_trained, tmp_path, base, gpu):
    workspace = copy_of_trained
    for sampler in ("ddim", "dpm++", "euler", "unipc"):
        generate.run(workspace, ["a photo of S*"], silent, overrides={"generate.sampler": sampler, "generate.guidance": 2})
    preview_aux.run(workspace, silent, overrides={"generate.count": 1})
    attention.run(workspace, None, silent, source="finetune")
    networks = {"evaluate.dinov2": make_dinov2(tmp_path / "dinov2"), "evaluate.clip": make_clip(tmp_path / "clip", base)}
    overrides = {**{key: str(folder) for key, folder in networks.items()}, "evaluate.count": 1}
    assert evaluate.run(workspace, silent, overrides=overrides)


def test_check_says_what_is_free_on_it(gpu, make_workspace):
    report = check.run(make_workspace(), silent)
    assert "cuda:0, bfloat16, 20,480 MiB free" in [finding.message for finding in report.findings]
    assert report.exit_code == 0


def test_check_finds_that_a_busy_gpu_has_no_room(gpu, make_workspace, monkeypatch):
    def fail(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 32.00 MiB")

    monkeypatch.setattr("cictl.engine.speed.measure_speed", fail)
    report = check.run(make_workspace(), silent)
    assert ("device", "memory-full") in [(finding.about, finding.slug) for finding in report.findings]
    assert report.exit_code == 5


def test_a_safety_checker_looks_at_previews_and_pictures(gpu, base, photographs, tmp_path):
    checked = add_checker(shutil.copytree(base, tmp_path / "base"), NOTHING)
    workspace = init.run(tmp_path / "my-teapot", model=str(checked), images=photographs, name="my-teapot")
    write_settings(workspace, {**quick(checked), **ON_THE_WAY, "invert.steps": 2})
    invert.run(workspace, silent)
    generate.run(workspace, ["a photo of S*"], silent, source="invert", overrides={"generate.count": 1})


def test_a_checker_that_memory_was_too_short_for_leaves_the_gpu_and_stands_there_without_the_vae(
    gpu, base, tmp_path, monkeypatch
):
    """Else the next attempt with fewer pictures would have less memory than the first."""
    checked = add_checker(shutil.copytree(base, tmp_path / "base"), NOTHING)
    opened, seen = [], []
    load = SharedBase.open
    monkeypatch.setattr(SharedBase, "open", lambda *given: opened.append(load(*given)) or opened[-1])

    def sample(*given, **named):
        seen.append(str(opened[0].checker.model.concept_embeds.device))
        return draw(*given, **named)

    def look(self, clip_input, images):
        seen.append(f"checker beside the VAE on {next(opened[0].model.vae.parameters()).device}")
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 32.00 MiB")
        return images, [False] * len(images)

    draw = sampling.sample
    monkeypatch.setattr(sampling, "sample", sample)
    monkeypatch.setattr("diffusers.pipelines.stable_diffusion.safety_checker.StableDiffusionSafetyChecker.forward", look)
    workspace = init.run(tmp_path / "my-teapot", model=str(checked), name="my-teapot")
    write_settings(workspace, {**quick(checked), "generate.count": 2, "generate.batch_size": 2})
    assert len(generate.run(workspace, ["a cat"], silent, source="base").pictures) == 2
    assert seen == ["cpu", "checker beside the VAE on cpu"] * 3

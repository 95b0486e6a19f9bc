"""The base model that draws is shared by what draws alike, and by nothing else."""

from __future__ import annotations

import gc
import shutil
import weakref

import pytest
import torch

from cictl.config import Config
from cictl.models.locate import locate_base
from cictl.models.stable_diffusion import StableDiffusion
from cictl.processes import ALONE
from cictl.workflow.fitting import free_memory
from cictl.workflow.shared_base import SharedBase
from tests.pretended_gpu import pretended_gpus
from tests.support import silent


def settings(located, **groups) -> Config:
    return Config.model_validate({**groups, "model": {"id": located.id, **groups.get("model", {})}})


def test_what_draws_alike_is_loaded_once_whatever_else_differs(located):
    shared = SharedBase()
    first = shared.open(settings(located), located, ALONE, silent)
    assert shared.open(settings(located, seed=3, generate={"steps": 7}), located, ALONE, silent) is first
    shared.free()
    assert shared.open(settings(located), located, ALONE, silent) is not first


@pytest.mark.parametrize(
    "groups", [{"model": {"device": "cpu"}}, {"model": {"dtype": "bf16"}}, {"generate": {"safety_checker": "off"}}]
)  # fmt: skip
def test_another_device_precision_or_checker_takes_the_place_of_what_drew_before(located, groups):
    shared = SharedBase()
    first = shared.open(settings(located), located, ALONE, silent)
    other = shared.open(settings(located, **groups), located, ALONE, silent)
    assert other is not first and other.model is not first.model
    wanted = torch.bfloat16 if groups == {"model": {"dtype": "bf16"}} else torch.float32
    assert other.model.unet.dtype == wanted and other.runtime.dtype == wanted


def test_another_base_takes_the_place_of_the_one_before(located, base, tmp_path):
    shared, copy = SharedBase(), locate_base(str(shutil.copytree(base, tmp_path / "another")))
    first = shared.open(settings(located), located, ALONE, silent)
    assert shared.open(settings(copy), copy, ALONE, silent).model.located == copy != first.model.located


@pytest.fixture
def no_collection():
    """Of garbage, unless somebody asks for it: when Python itself does is chance."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_on_a_gpu_the_base_that_drew_before_is_gone_before_another_is_loaded(located, monkeypatch, no_collection):
    with pretended_gpus(monkeypatch):
        shared, found = SharedBase(), []
        weight = weakref.ref(shared.open(settings(located), located, ALONE, silent).model.unet.conv_in.weight)
        load = StableDiffusion.load
        monkeypatch.setattr(StableDiffusion, "load", lambda *given, **named: found.append(weight()) or load(*given, **named))
        shared.open(settings(located, model={"dtype": "fp32"}), located, ALONE, silent)
    assert found == [None]


def test_a_model_that_nobody_holds_counts_as_free_memory_of_a_gpu(located, monkeypatch, no_collection):
    with pretended_gpus(monkeypatch):
        model = StableDiffusion.load(located, torch.device("cuda:0"), torch.float32)
        weight = weakref.ref(model.unet.conv_in.weight)
        del model
        free_memory(torch.device("cuda:0"))
    assert weight() is None

"""The base model that draws is shared by what draws alike, and by nothing else."""

from __future__ import annotations

import shutil

import pytest
import torch

from cictl.config import Config
from cictl.models.locate import locate_base
from cictl.processes import ALONE
from cictl.workflow.shared_base import SharedBase
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

"""The ways of a GPU: what they change of a UNet, on tiny models."""

from __future__ import annotations

import torch

from benchmarks.ways.programs import change_when_loaded, lose_order
from benchmarks.ways.settings import GROUPS
from cictl.config import parse_overrides
from cictl.models.channels_last import keep_channels_last
from cictl.models.convolutions import keep_no_input
from cictl.models.locate import locate_base
from cictl.models.stable_diffusion import StableDiffusion
from tests.tiny import make_base


def test_each_group_begins_with_the_default_and_no_two_are_alike():
    for ways in GROUPS.values():
        assert ways[0].name.endswith("the default")
        assert not ways[0].settings and not ways[0].compiled and ways[0].order_kept
        assert len({way.name for way in ways}) == len(ways)
        assert len({(way.what, str(way.settings), way.compiled, way.order_kept) for way in ways}) == len(ways)
        for way in ways:
            parse_overrides([f"{key}={value}" for key, value in way.settings.items()])


def test_a_unet_that_loses_the_order_computes_the_librarys_way(tmp_path, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "load", StableDiffusion.load)  # so that it is put back
    base = locate_base(str(make_base(tmp_path / "base")))
    load, seen = StableDiffusion.load, []
    plain = load(base, torch.device("cpu"), torch.float64).unet
    change_when_loaded(seen.append)
    unet = StableDiffusion.load(base, torch.device("cpu"), torch.float64).unet
    assert seen == [unet]
    keep_no_input(unet)
    before = {name: vars(module).get("forward") for name, module in unet.named_modules()}
    keep_channels_last(unet)
    lose_order(unet)
    for name, module in unet.named_modules():
        assert getattr(vars(module).get("forward"), "__func__", None) is getattr(before[name], "__func__", None)
        assert "_get_output_for_continuous_inputs" not in vars(module)
    noisy, context = torch.randn(1, 4, 8, 8).double(), torch.randn(1, 7, 32).double()
    time = torch.tensor([3])
    assert torch.allclose(unet(noisy, time, context).sample, plain(noisy, time, context).sample)

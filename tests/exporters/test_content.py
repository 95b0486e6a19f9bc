"""What all exporters compute with, against numbers that are known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from cictl.exporters import lycoris, single_file
from cictl.exporters.content import DTYPES, Exportable, Options, Place, UnfitError, metadata, relative_error, stored
from cictl.exporters.decomposition import describe, factors_of
from cictl.models.base_files import base_key_values


@pytest.fixture
def source(located) -> Exportable:
    """A change of every K and V of the tiny base, in singular values of 4, 2 and 1."""
    base = base_key_values(located)
    tuned = {}
    for index, (name, weight) in enumerate(base.items()):
        left, _, right = torch.linalg.svd(torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)).double())
        tuned[name] = weight + 1e-3 * ((left[:, :3] * torch.tensor([4.0, 2.0, 1.0])) @ right[:3]).float()
    return Exportable("my-teapot", torch.ones(2, 32), tuned, base, located, {"trigger": "my-teapot", "base_model": "tiny"})


def test_floating_point_numbers_are_stored_in_the_precision_that_is_asked_for_but_for_single_ones():
    tensors = {
        "w": torch.ones(3, 2).t(),
        "ids": torch.arange(3),
        "alpha": torch.tensor(301.0),
        "p": torch.nn.Parameter(torch.ones(2)),
    }
    for name, dtype in DTYPES.items():
        found = stored(tensors, name)
        kinds = {"w": dtype, "ids": torch.int64, "alpha": torch.float32, "p": dtype}
        assert {key: tensor.dtype for key, tensor in found.items()} == kinds
        assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in found.values())
    assert stored(tensors)["w"].dtype == torch.float32


def test_the_error_is_relative_to_all_weights_together():
    wanted = {"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([[4.0]])}
    assert relative_error(wanted, wanted) == 0
    assert relative_error({"a": torch.tensor([[3.0, 1.0]]), "b": torch.tensor([[4.0]])}, wanted) == pytest.approx(1 / 5)
    assert relative_error({"a": torch.zeros(1, 2)}, {"a": torch.zeros(1, 2)}) == 0


def test_equal_facts_are_equal_bytes_whatever_their_order(source):
    turned = replace(source, facts=dict(reversed(source.facts.items())))
    assert metadata(source, dtype="bf16") == metadata(turned, dtype="bf16")
    assert json.loads(metadata(source, dtype="bf16")["cictl"]) == {**source.facts, "dtype": "bf16"}


@pytest.mark.parametrize(("folder", "whole", "file"), [("", ".", "a/ü.json"), ('my "é"', 'my "é"', 'my "é"/a/ü.json')])
def test_a_place_is_a_python_string(folder, whole, file):
    place = Place(folder, "", "")
    assert (eval(place.whole), eval(place.file("a/ü.json"))) == (whole, file)
    assert "\\u" not in place.whole + place.file("ü")


@pytest.mark.parametrize(("rank", "kept"), [(1, 16 / 21), (2, 20 / 21), (3, 1), (9, 1)])
def test_what_is_said_of_a_lora_is_the_energy_of_its_singular_values(source, rank, kept):
    said = describe(source, Options(rank=rank))
    assert f"rank {rank} in 8 modules, keeps {100 * kept:.3g}% of the change's energy" in said
    if kept < 1:
        assert f"relative error {100 * (1 - kept) ** 0.5:.3g}%" in said


def test_a_lora_has_the_rank_that_the_change_needs_and_never_more_than_the_layers_have(source):
    ranks = {name: {pair.rank for pair in factors_of(source, rank).values()} for name, rank in (("auto", None), ("most", 10_000))}
    assert ranks == {"auto": {3}, "most": {32}}  # 20 / 21 would be kept by two


def test_layers_of_different_sizes_have_the_rank_of_the_one_that_needs_most_and_lose_nothing(source):
    base = {"narrow": torch.zeros(2, 9), "wide": torch.zeros(6, 9)}
    tuned = {name: torch.eye(*weight.shape) for name, weight in base.items()}
    odd = replace(source, key_values=tuned, base_key_values=base)
    for rank in (None, 10_000):
        factors = factors_of(odd, rank)
        assert {pair.rank for pair in factors.values()} == {6}
        for name, pair in factors.items():
            torch.testing.assert_close(pair.up @ pair.down, tuned[name])


def test_what_a_lora_loses_by_its_precision_is_in_what_is_said_of_it(source):
    exact, coarse = (float(describe(source, Options(rank=3, dtype=dtype)).split()[-1][:-1]) for dtype in ("fp32", "bf16"))
    assert exact < 0.01 < 0.1 < coarse < 1


def test_lycoris_says_what_its_tensors_are(source):
    content = lycoris.build(source, Options()).files["loras/my-teapot.safetensors"]
    assert content.metadata["ss_network_module"] == "lycoris.kohya"
    assert json.loads(content.metadata["ss_network_args"]) == {"algo": "full"}
    assert json.loads(content.metadata["cictl"]) == source.facts


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_file_is_of_the_tuned_model_in_the_precision_that_is_asked_for(source, dtype):
    built = single_file.build(source, Options(dtype=dtype))
    content = built.files["checkpoints/my-teapot.safetensors"]
    assert {tensor.dtype for tensor in content.tensors.values() if tensor.is_floating_point()} == {DTYPES[dtype]}
    assert json.loads(content.metadata["cictl"])["dtype"] == dtype
    assert bool(built.notes) == (dtype != "fp32")
    written = [tensor for name, tensor in content.tensors.items() if name.endswith("attn2.to_k.weight")]
    tuned = [weight.to(DTYPES[dtype]) for name, weight in source.key_values.items() if name.endswith("to_k.weight")]
    assert len(written) == len(tuned)
    assert all(any(torch.equal(one, other) for other in tuned) for one in written)


@pytest.mark.parametrize("spoilt", [lambda tensor: tensor + 1, lambda tensor: tensor[:1]])
def test_a_single_file_that_would_be_read_as_something_else_is_refused(source, monkeypatch, spoilt):
    def misread(part, tensors, config):
        back = translate(part, tensors, config)
        last = sorted(back)[-1]
        return {**back, last: spoilt(back[last])}

    translate = single_file.translate
    monkeypatch.setattr(single_file, "translate", misread)
    with pytest.raises(UnfitError, match="does not fit the layout of a single file"):
        single_file.build(source, Options())

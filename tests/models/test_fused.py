"""Fused normalisations and gates against the library's, in Triton's interpreter on the CPU."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("triton", reason="it exists on Linux alone")

from cictl.models import fused, kernels

CPU = torch.device("cpu")
PRECISIONS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_alike(work, exact, *inputs: torch.Tensor, tolerance: float) -> None:
    """Result and gradient of ``work``, against those of ``exact`` in fp64."""
    results = []
    for one, function in ((inputs[0], work), (inputs[0].double(), exact)):
        given = one.clone().requires_grad_(True)
        result = function(given)
        weights = drawn(*result.shape, dtype=result.dtype, seed=1)
        results.append([result.detach(), *torch.autograd.grad(result, given, weights.to(result.dtype))])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == inputs[0].dtype and found.shape == expected.shape
        assert float((found.double() - expected).norm() / expected.norm()) < tolerance


def norm_of(channels: int, groups: int) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups, channels, eps=1e-5).requires_grad_(False)
    norm.weight.copy_(drawn(channels, seed=2))
    norm.bias.copy_(drawn(channels, seed=3))
    return norm


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(
    ("shape", "groups"), [((2, 20, 5, 7), 2), ((1, 64, 9, 9), 32), ((3, 96, 8, 8), 8), ((1, 8, 65, 64), 4)], ids=str
)
def test_a_normalisation_is_the_librarys_and_has_its_gradient(shape, groups, dtype, silu):
    norm = norm_of(shape[1], groups)
    exact = copy.deepcopy(norm).double()

    def plain(hidden):
        return F.silu(exact(hidden)) if silu else exact(hidden)

    hidden = (drawn(*shape) * 2 + 1).to(dtype)
    for order in (torch.contiguous_format, torch.channels_last):
        given = hidden.contiguous(memory_format=order)
        assert_alike(lambda x: fused.normalize(x, norm.to(dtype), silu=silu), plain, given, tolerance=PRECISIONS[dtype])


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 24), (1, 700, 16), (3, 2)], ids=str)
def test_a_gate_is_the_librarys_and_has_its_gradient(shape, dtype):
    def plain(projected):
        hidden, gate = projected.chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    assert_alike(fused.gated, plain, drawn(*shape, dtype=dtype), tolerance=PRECISIONS[dtype])


def test_a_fused_unet_predicts_what_the_plain_one_does_with_its_gradient_and_keeps_less(model):
    plain = model.unet
    other = copy.deepcopy(plain)
    fused.fuse(other)
    noisy, context = drawn(2, 4, 16, 16), drawn(2, 7, 32, seed=4).requires_grad_(True)
    results, kept = [], []
    for unet in (plain, other):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.nbytes) or tensor, lambda x: x
        ):
            predicted = unet(noisy, torch.tensor([3, 700]), encoder_hidden_states=context).sample
        gradient = torch.autograd.grad(predicted.square().mean(), context)[0]
        results.append((predicted.detach(), gradient))
        kept.append(sum(sizes))
    for one, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=2e-5)
    assert kept[1] < 0.9 * kept[0]


def test_weights_that_train_are_left_to_the_library(model):
    unet = copy.deepcopy(model.unet)
    fused.fuse(unet)
    for parameter in unet.parameters():
        parameter.requires_grad_(True)
    plain = copy.deepcopy(model.unet).requires_grad_(True)
    noisy, context = drawn(2, 4, 16, 16), drawn(2, 7, 32, seed=4)
    gradients = []
    for one in (unet, plain):
        loss = one(noisy, torch.tensor([3, 700]), encoder_hidden_states=context).sample.square().mean()
        gradients.append(torch.autograd.grad(loss, list(one.parameters())))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # where nothing is kept of the result
def test_where_triton_fails_the_library_stays(monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    assert fused.what_fails_on(CPU) == ""
    monkeypatch.setattr(fused, "normalize", fail)
    assert fused.what_fails_on(CPU) == "Failed to find C compiler"


# -- what the interpreter alone does not show -------------------------------------------------------


@pytest.fixture
def run_alone(monkeypatch):
    """Runs one program of a kernel, as of a grid that would take hours; nothing is copied, so that memory that is not touched is
    none."""
    from triton.runtime import interpreter

    def run(kernel, at: tuple[int, int, int], *arguments: object) -> None:
        builder = interpreter.interpreter_builder
        monkeypatch.setattr(builder, "set_grid_idx", lambda *index: setattr(builder, "grid_idx", at))
        kernel[1, 1, 1](*arguments)

    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *arguments: None)
    return run


FAR = 2**31  # numbers, behind which 32 bits end


def test_a_batch_of_more_than_two_thousand_million_numbers_is_normalized_where_it_is(run_alone):
    positions, channels, picture = 2**20, 64, FAR // (2**20 * 64)
    hidden, gradient, output, result = (torch.empty(FAR + positions * channels, dtype=torch.int8) for _ in range(4))
    begin = slice(FAR, FAR + 64 * channels)  # 64 positions, which a program has
    for tensor, value in ((hidden, 3), (gradient, 2), (output, 0), (result, 0)):
        tensor[begin] = value
    sums = torch.zeros(picture + 1, 1, 2, channels)
    scale, shift = torch.full((picture + 1, channels), 5.0), torch.full((picture + 1, channels), 7.0)
    ones = torch.ones(picture + 1, 1)
    at, shape = (picture, 0, 0), (positions, channels)
    run_alone(kernels.sum_channels, at, hidden, sums, *shape, 1, 1, 64, 64)
    assert sums[picture, 0, :, 5].tolist() == [64 * 3, 64 * 9]
    run_alone(kernels.scale_and_activate, at, hidden, scale, shift, output, *shape, False, 64, 64)
    assert (output[begin] == 3 * 5 + 7).all()
    run_alone(kernels.sum_gradients, at, hidden, gradient, scale, shift, sums, *shape, 1, False, 1, 64, 64)
    assert sums[picture, 0, :, 5].tolist() == [64 * 2, 64 * 6]
    run_alone(kernels.input_gradient, at, hidden, gradient, scale, shift, ones, ones, result, *shape, 1, 64, False, 64, 64)
    assert (result[begin] == 2 * 5 + 3 + 1).all()


def test_a_gate_of_more_than_two_thousand_million_numbers_reads_and_writes_where_they_are(run_alone):
    width = 48
    count = (FAR // 2 // width + 100) * width  # of the output; the input has twice as many
    projected, result = (torch.empty(2 * count, dtype=torch.int8) for _ in range(2))
    output, gradient = (torch.empty(count, dtype=torch.int8) for _ in range(2))
    program = count // 64 - 1
    begin = program * 64
    for at in range(begin, begin + 64):
        first = at + at // width * width
        projected[first], projected[first + width], gradient[at] = at % 5, 10, 3
    run_alone(kernels.multiply_by_gelu, (program, 0, 0), projected, output, count, width, 64)
    assert output[begin : begin + 64].tolist() == [at % 5 * 10 for at in range(begin, begin + 64)]
    run_alone(kernels.gradient_of_gate, (program, 0, 0), projected, gradient, result, count, width, 64)
    for at in range(begin, begin + 64):
        first = at + at // width * width
        assert (int(result[first]), int(result[first + width])) == (30, 3 * (at % 5))


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from cictl.models import kernels

numbers = {"positions", "channels", "blocks", "size", "groups", "width"}
known = {"SILU": True, "TURNS": 2, "P": 64, "C": 64, "S": 16, "N": 1024}
pictures = {"hidden", "output", "gradient", "result", "projected", "weight", "bias"}
for name in sys.argv[1:]:
    kernel, types, aligned, given = getattr(kernels, name), {}, {}, {}
    for index, argument in enumerate(kernel.arg_names):
        if argument in known:
            types[argument], given[index,] = "constexpr", known[argument]
        elif argument == "eps":
            types[argument] = "fp32"
        else:
            of = "*bf16" if argument in pictures else "*fp32"
            types[argument] = "i32" if argument in numbers else "i64" if argument == "count" else of
            aligned[index,] = [["tt.divisibility", 16]]
    code = compile(ASTSource(kernel, types, given, aligned), target=GPUTarget("cuda", 80, 32)).asm["ptx"]
    sys.stdout.write(f"{name} {'ld.global.v4' in code}\\n")
"""


def test_the_compiler_of_a_gpu_takes_them_and_lets_them_read_16_bytes_at_a_time(tmp_path):
    """Needs no GPU; the interpreter takes what a compiler may not."""
    whole = ["sum_channels", "scale_and_activate", "sum_gradients", "input_gradient", "multiply_by_gelu", "gradient_of_gate"]
    groups = ["to_scale", "to_coefficients"]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys{COMPILE}", *whole, *groups], capture_output=True, text=True, check=False,
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) >= {f"{name} True" for name in whole}

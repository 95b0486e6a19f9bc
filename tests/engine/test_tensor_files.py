"""Our own writer and reader of safetensors files, against the library's."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from cictl.engine.tensor_files import StoredTensors, holds, places, serialized
from tests.support import assert_same_bits

TENSORS = {
    "b": torch.randn(3, 5), "a.weight": torch.randn(2, 2).half(), "c": torch.randn(7).bfloat16(), "ids": torch.arange(4),
    "empty": torch.zeros(0), "one": torch.tensor(2.0), "*ü": torch.randn(1, 2, 3),
    "wide": torch.randn(3).double(), "turned": torch.randn(3, 5).t(),
}  # fmt: skip


@pytest.mark.parametrize("metadata", [{}, {"cictl": '{"trigger": "my-teapot", "x": "ü\\n"}'}])
def test_the_bytes_are_those_of_the_library(metadata):
    for tensors in (TENSORS, {}, {"a": torch.randn(3)}, {name: TENSORS[name] for name in ("a.weight", "c")}):
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        assert b"".join(serialized(tensors, metadata)) == save(contiguous, metadata or None)


def test_several_texts_always_have_the_same_order(tmp_path):
    texts = {f"key{number}": str(number) for number in range(20)}
    content = b"".join(serialized(TENSORS, texts))
    assert content == b"".join(serialized(TENSORS, dict(reversed(texts.items()))))
    (tmp_path / "file").write_bytes(content)
    with safe_open(tmp_path / "file", "pt") as file:
        assert file.metadata() == texts
    assert all(torch.equal(load(content)[name], tensor) for name, tensor in TENSORS.items())


def test_a_file_holds_its_tensors_and_no_others(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"".join(serialized(TENSORS)))
    assert holds(path, TENSORS)
    for other in (
        {**TENSORS, "more": torch.zeros(1)},
        {name: tensor for name, tensor in TENSORS.items() if name != "b"},
        {**TENSORS, "b": TENSORS["b"] + 1e-6},
        {**TENSORS, "b": TENSORS["b"].double()},
    ):
        assert not holds(path, other)
    path.write_bytes(path.read_bytes()[:-1])
    assert not holds(path, TENSORS)


@pytest.mark.parametrize("metadata", [{}, {"cictl": "ü"}])
def test_tensors_are_read_one_by_one_with_the_bits_that_were_written(tmp_path, metadata):
    path = tmp_path / "file"
    path.write_bytes(b"".join(serialized(TENSORS, metadata)))
    read = StoredTensors(places(path))
    assert_same_bits(dict(read), {name: tensor.contiguous() for name, tensor in TENSORS.items()})
    read["b"].zero_()
    assert torch.equal(read["b"], TENSORS["b"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match="ends within"):
        dict(read)
    path.unlink()
    assert "b" in read and "d" not in read  # without a look at the tensor

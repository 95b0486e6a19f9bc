"""The truncated singular value decomposition, against what is known of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cictl.exporters.decomposition import decompose, low_rank, rank_for_energy


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), rank=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_a_rank_misses_is_the_energy_of_the_other_singular_values(rows, columns, rank, seed):
    change = matrix(rows, columns, seed)
    factors = low_rank(decompose(change), rank)
    assert (factors.down.shape, factors.up.shape) == ((rank, columns), (rows, rank))
    missed = (change.double() - factors.up.double() @ factors.down.double()).square().sum()
    expected = torch.linalg.svdvals(change.double())[rank:].square().sum()
    torch.testing.assert_close(missed, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("values", "share", "rank"), [
    ([10.0, 0.1, 0.1], 0.99, 1), ([1.0, 1.0, 1.0, 1.0], 0.99, 4), ([1.0, 1.0, 1.0, 1.0], 0.5, 2), ([3.0, 1.0], 0.9, 1),
    ([3.0, 1.0], 0.91, 2), ([0.0, 0.0], 0.99, 1),
])  # fmt: skip
def test_the_rank_is_the_smallest_that_holds_the_share(values, share, rank):
    assert rank_for_energy(torch.tensor(values, dtype=torch.float64), share) == rank


def test_a_matrix_and_its_negative_have_the_same_left_vectors():
    """So that the bytes do not depend on which of both signs a library gives."""
    one, other = decompose(matrix(5, 7)), decompose(-matrix(5, 7))
    torch.testing.assert_close(one.left, other.left)
    torch.testing.assert_close(one.right, -other.right)
    for part in (one, other):
        assert {tensor.dtype for tensor in part} == {torch.float64}
        assert (part.left.gather(0, part.left.abs().argmax(0, keepdim=True)) > 0).all()
        torch.testing.assert_close(part.left * part.values @ part.right, matrix(5, 7).double() * (1 if part is one else -1))

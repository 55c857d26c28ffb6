import pytest
import torch

from sae.evaluation import products as module
from sae.evaluation.products import moments, power_products, products
from sae.evaluation.responses import DenseResponses, SparseResponses


def sparse(dense: torch.Tensor) -> SparseResponses:
    items, units = dense.nonzero(as_tuple=True)
    return SparseResponses.of_entries(items, units, dense[items, units], *dense.shape)


def as_dense(dense: torch.Tensor) -> DenseResponses:
    return DenseResponses(lambda units: dense[:, units], *dense.shape)


def random_activations(n_items: int, n_units: int, seed: int, share: float = 0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    fired = torch.rand(n_items, n_units, generator=generator) < share
    return fired * torch.rand(n_items, n_units, generator=generator)


@pytest.mark.parametrize("make_one", [sparse, as_dense])
@pytest.mark.parametrize("make_two", [sparse, as_dense])
def test_products_are_those_of_dense_matrices(monkeypatch, make_one, make_two):
    monkeypatch.setattr(module, "SPARSE_BLOCK", 7)
    one, two = random_activations(200, 20, 0), random_activations(200, 33, 1)
    found = list(products(make_one(one), make_two(two)))
    assert found[0][0] == 0 and sum(len(block) for _, block in found) == 20
    torch.testing.assert_close(torch.cat([block for _, block in found]), one.double().T @ two.double())


def test_powers_count_absent_entries_as_zero():
    one, two = random_activations(100, 5, 0), random_activations(100, 6, 1)
    ((_, blocks),) = power_products(sparse(one), sparse(two), [(2, 0), (0, 0)])
    torch.testing.assert_close(blocks[0], one.double().square().T @ (two > 0).double())
    torch.testing.assert_close(blocks[1], (one > 0).double().T @ (two > 0).double())


@pytest.mark.parametrize("make", [sparse, as_dense])
def test_moments(make):
    one = random_activations(100, 5, 0)
    one[:, 2] = 0
    sums, squares = moments(make(one))
    torch.testing.assert_close(sums, one.double().sum(0))
    torch.testing.assert_close(squares, one.double().square().sum(0))

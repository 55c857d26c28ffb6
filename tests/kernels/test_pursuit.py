"""Matching pursuit against its definition, one row at a time, and its gradient against automatic differentiation."""

import pytest
import torch
from torch import Tensor

from sae.kernels import pursuit
from sae.kernels.pursuit import encode_pursuit

D_IN, D_SAE, K = 6, 20, 5


def unit_rows(seed: int, n: int = D_SAE) -> Tensor:
    rows = torch.randn(n, D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=1, keepdim=True)


def arguments(batch: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, D_IN, generator=generator, dtype=torch.float64)
    centre = 0.3 * torch.randn(D_IN, generator=generator, dtype=torch.float64)
    return x, centre, unit_rows(1), unit_rows(1) + 0.1 * unit_rows(2)


def naive(x: Tensor, centre: Tensor, read: Tensor, write: Tensor, k: int) -> tuple[Tensor, list[list[int]]]:
    """The equations of the module docstring; automatic differentiation sees the choice as fixed."""
    values, chosen = [], []
    for row in x:
        residual, row_values, row_chosen = row - centre, [], []
        for _ in range(k):
            pre = torch.stack([direction @ residual for direction in read])
            best = int(pre.argmax())
            value = pre[best].clamp_min(0)
            residual = residual - value * write[best]
            row_values.append(value)
            row_chosen.append(best)
        values.append(torch.stack(row_values))
        chosen.append(row_chosen)
    return torch.stack(values), chosen


@pytest.fixture(params=["dot products", "residuals"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of choosing; blocks of 4 rows leave a last block that is not full."""
    monkeypatch.setattr(pursuit, "BLOCK_ROWS", 4)
    monkeypatch.setattr(pursuit, "LARGEST_GRAM", D_SAE if request.param == "dot products" else 0)
    return request.param


def test_it_follows_its_definition(way: str) -> None:
    values, indices = encode_pursuit(*arguments(), K)
    expected, chosen = naive(*arguments(), K)
    assert indices.tolist() == chosen and indices.dtype == torch.int32
    torch.testing.assert_close(values, expected)
    assert len({tuple(sorted(set(row))) for row in chosen}) > 1
    assert any(len(set(row)) < 3 * K for row in naive(*arguments(60), 3 * K)[1]), "repeats are part of the definition"


def test_gradients_are_those_of_automatic_differentiation(way: str) -> None:
    weights = torch.randn(9, K, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found, expected = [], []
    for function, into in ((encode_pursuit, found), (naive, expected)):
        leaves = [tensor.clone().requires_grad_() for tensor in arguments()]
        (function(*leaves, K)[0] * weights).sum().backward()
        into += [leaf.grad for leaf in leaves]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_matrix_in_both_roles_gets_both_gradients() -> None:
    x, centre, directions, _ = arguments()
    tied = directions.clone().requires_grad_()
    read, write = (directions.clone().requires_grad_() for _ in range(2))
    encode_pursuit(x, centre, tied, tied, K)[0].square().sum().backward()
    encode_pursuit(x, centre, read, write, K)[0].square().sum().backward()
    torch.testing.assert_close(tied.grad, read.grad + write.grad)


def test_with_unit_directions_every_step_lowers_the_error() -> None:
    x, centre, directions, _ = arguments(50)
    values, indices = encode_pursuit(x, centre, directions, directions, K)
    taken = (values[:, :, None] * directions[indices]).cumsum(1)
    errors = (x[:, None] - centre - taken).square().sum(2)
    assert (errors.diff(dim=1) <= 1e-12).all()


def test_it_stops_where_no_direction_points_along_what_is_left() -> None:
    x, directions = torch.tensor([[1.0, -1.0, 0.0]]), torch.eye(3)
    values, _ = encode_pursuit(x, torch.zeros(3), directions, directions, 3)
    assert values.tolist() == [[1.0, 0.0, 0.0]]


def test_only_latents_that_are_allowed_are_chosen() -> None:
    x, centre, read, write = arguments(40)
    among = torch.arange(D_SAE) % 3 == 0
    values, indices = encode_pursuit(x, centre, read, write, K, among)
    assert among[indices.long()].all()
    few, few_indices = encode_pursuit(x, centre, read[among], write[among], K)
    assert torch.equal(values, few)
    assert torch.equal(indices.long(), among.nonzero()[:, 0][few_indices.long()])
    nothing, _ = encode_pursuit(x, centre, read, write, K, torch.zeros_like(among))
    assert not nothing.any()


def test_no_rows_are_no_problem() -> None:
    x, centre, read, write = arguments(0)
    values, indices = encode_pursuit(x.requires_grad_(), centre, read.requires_grad_(), write, K)
    values.sum().backward()
    assert values.shape == indices.shape == (0, K) and not read.grad.any()

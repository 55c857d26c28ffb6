import pytest
import torch

from sae.dictionaries.initialisation import geometric_median, normalise_rows_, random_unit_rows


def test_median_of_an_odd_line_is_its_middle_point() -> None:
    x = torch.tensor([[-5.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [40.0, 0.0]])
    assert geometric_median(x, max_iterations=2000).tolist() == pytest.approx([1.0, 0.0], abs=1e-3)


def test_median_minimises_the_sum_of_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator).double().exp()
    median = geometric_median(x)
    best = torch.linalg.vector_norm(x - median, dim=1).sum()
    for _ in range(20):
        other = median + 0.05 * torch.randn(3, generator=generator).double()
        assert torch.linalg.vector_norm(x - other, dim=1).sum() > best


def test_median_ignores_how_far_an_outlier_lies() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(99, 4, generator=generator), torch.full((1, 4), 1e6)])
    assert torch.linalg.vector_norm(geometric_median(x)) < 0.5 < torch.linalg.vector_norm(x.mean(0))


@pytest.mark.parametrize("x", [torch.ones(4, 3), torch.zeros(1, 3)])
def test_median_of_identical_points(x: torch.Tensor) -> None:
    assert torch.equal(geometric_median(x), x[0].double())


def test_rows_are_unit_spread_out_and_seeded() -> None:
    rows = random_unit_rows(500, 8, torch.Generator().manual_seed(3))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(500))
    assert rows.mean(0).norm() < 0.1
    assert torch.equal(rows, random_unit_rows(500, 8, torch.Generator().manual_seed(3)))


def test_a_row_of_zeros_stays() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    normalise_rows_(rows)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))

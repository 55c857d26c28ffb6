import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae.dictionaries.affine import Affine


def whitening(width: int, seed: int = 0) -> Affine:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(width, width, generator=generator).double() + 3 * torch.eye(width)
    mean = torch.randn(width, generator=generator).double()
    return Affine(mean, matrix, torch.linalg.inv(matrix))


@given(scale=st.floats(1e-3, 1e3), width=st.integers(1, 9))
def test_the_unit_of_one_factor_is_its_reciprocal_and_leaves_directions_alone(scale: float, width: int) -> None:
    mapping = Affine.scaling(scale, width)
    assert mapping.unit == pytest.approx(1 / scale, rel=1e-14)
    assert torch.equal((mapping.inverse / mapping.unit).float(), torch.ones(width))
    assert mapping.is_uniform


def test_undo_undoes() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).double()
    for mapping in (whitening(5), Affine.scaling(0.3, 5, torch.arange(5.0))):
        torch.testing.assert_close(mapping.undo(mapping(x)), x)


@pytest.mark.parametrize("parts", [(Affine.scaling(2.0, 3), Affine.scaling(0.5, 2)), (whitening(3), whitening(2, 1))])
def test_side_by_side_maps_each_part_by_itself(parts: tuple[Affine, Affine]) -> None:
    mapping = Affine.side_by_side(parts)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    expected = torch.cat([parts[0](x[:, :3]), parts[1](x[:, 3:])], dim=1)
    torch.testing.assert_close(mapping(x), expected)
    torch.testing.assert_close(mapping.undo(mapping(x)), x)
    torch.testing.assert_close(mapping.part(slice(3, 5))(x[:, 3:]), expected[:, 3:])
    assert not mapping.is_uniform


def test_a_factor_and_a_matrix_side_by_side() -> None:
    mapping = Affine.side_by_side([Affine.scaling(2.0, 3), whitening(2)])
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(mapping(x)[:, :3], 2 * x[:, :3])
    torch.testing.assert_close(mapping.undo(mapping(x)), x)


def test_the_unit_is_the_mean_spread_of_what_whitening_made_unit() -> None:
    values = torch.tensor([4.0, 1.0, 0.25]).double()
    mapping = Affine(torch.zeros(3).double(), values.rsqrt(), values.sqrt())
    assert mapping.unit == pytest.approx(float(values.mean().sqrt()))

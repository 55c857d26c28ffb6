import torch

from sae.activations.statistics import Statistics, by_kind, merge_kinds
from sae.tensors import Kind


def rows(n: int = 5000, d_in: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, d_in, generator=generator) * torch.logspace(-2, 2, d_in) + 40.0).bfloat16()


def naive(x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.double()
    return {
        "mean": x.mean(0),
        "variance": x.var(0, correction=0),
        "covariance": torch.cov(x.T, correction=0),
        "mean_norm": x.norm(dim=1).mean(),
        "mean_square_norm": x.norm(dim=1).square().mean(),
    }


def check(found: Statistics, x: torch.Tensor) -> None:
    assert found.count == len(x)
    for name, value in naive(x).items():
        torch.testing.assert_close(
            torch.as_tensor(getattr(found, name), dtype=torch.float64), value, rtol=1e-9, atol=1e-9
        )


def test_the_whole_equals_the_naive_formulas() -> None:
    check(Statistics.of(rows(), covariance=True), rows())


def test_merged_parts_equal_the_whole() -> None:
    x = rows()
    parts = [Statistics.of(part, covariance=True) for part in x.tensor_split([1, 1, 17, 900, 4999])]
    check(Statistics.merge_all(parts), x)


def test_the_same_parts_in_the_same_order_give_the_same_bits() -> None:
    parts = [Statistics.of(part) for part in rows().split(700)]
    half = Statistics.from_tensors(Statistics.merge_all(parts[:4]).tensors())
    resumed, whole = Statistics.merge_all([half, *parts[4:]]), Statistics.merge_all(parts)
    assert all(torch.equal(resumed.tensors()[key], value) for key, value in whole.tensors().items())


def test_a_far_away_mean_does_not_drown_the_variance() -> None:
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).float() + 1000.0
    found = Statistics.merge_all(Statistics.of(part) for part in x.split(64))
    torch.testing.assert_close(found.variance, x.double().var(0, correction=0), rtol=1e-8, atol=0)


def test_constant_vectors_have_no_variance() -> None:
    assert (Statistics.of(torch.full((999, 4), 0.1)).variance < 1e-16).all()


def test_kinds_are_summed_apart() -> None:
    x = rows(300)
    kinds = torch.tensor([Kind.BOS, Kind.TOKEN, Kind.TOKEN], dtype=torch.uint8).repeat(100)
    merged = merge_kinds(by_kind(x[:150], kinds[:150], True), by_kind(x[150:], kinds[150:], True))
    assert set(merged) == {Kind.BOS, Kind.TOKEN}
    check(merged[Kind.BOS], x[kinds == Kind.BOS])
    check(merged[Kind.TOKEN], x[kinds == Kind.TOKEN])


def test_not_finite_is_noticed() -> None:
    x = torch.zeros(10, 3)
    assert Statistics.of(x).finite()
    x[7, 1] = float("nan")
    assert not Statistics.of(x).finite()
    x[7, 1] = float("-inf")
    assert not Statistics.of(x).finite()

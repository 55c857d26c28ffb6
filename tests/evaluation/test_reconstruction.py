import math

import pytest
import torch

from sae.dictionaries.codes import Codes
from sae.errors import ConfigError, EvaluationError
from sae.evaluation.metric import Accumulator, Metric, find_metric
from sae.evaluation.reconstruction import (
    L0,
    Cosine,
    ExplainedVariance,
    FiringRates,
    Fvu,
    NormRatio,
    Reconstruction,
    firing_scores,
)

ROWS, WIDTH = 700, 16


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, WIDTH, generator=generator) * torch.rand(WIDTH, generator=generator) + 5


@pytest.fixture
def x_hat(x: torch.Tensor) -> torch.Tensor:
    return x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def score(metric: type[Metric], x: torch.Tensor, x_hat: torch.Tensor, batch: int) -> float:
    accumulator = Accumulator([metric])
    codes = torch.relu(x_hat - 5)
    for i in range(0, len(x), batch):
        accumulator.update(
            Reconstruction(x[i : i + batch], Codes.from_dense(codes[i : i + batch]), x_hat[i : i + batch])
        )
    return accumulator.scores(n_draws=50)[0].value


@pytest.mark.parametrize("metric", [Fvu, ExplainedVariance, Cosine, NormRatio, L0])
def test_the_batch_size_does_not_matter(metric: type[Metric], x: torch.Tensor, x_hat: torch.Tensor) -> None:
    assert score(metric, x, x_hat, 3) == pytest.approx(score(metric, x, x_hat, ROWS), rel=1e-9)


def test_predicting_the_mean_leaves_everything_unexplained(x: torch.Tensor) -> None:
    mean = x.double().mean(0).expand_as(x)
    assert score(Fvu, x, mean, 64) == pytest.approx(1, abs=1e-9)
    assert score(ExplainedVariance, x, mean, 64) == pytest.approx(0, abs=1e-9)
    assert score(Fvu, x, x, 64) == 0


def test_a_constant_error_counts(x: torch.Tensor) -> None:
    variance = (x - x.mean(0)).double().square().sum().item()
    assert score(Fvu, x, x + 1, 64) == pytest.approx(ROWS * WIDTH / variance, rel=1e-5)


def test_naive_twins(x: torch.Tensor, x_hat: torch.Tensor) -> None:
    a, b = x.double().numpy(), x_hat.double().numpy()
    assert score(Fvu, x, x_hat, 64) == pytest.approx(((a - b) ** 2).sum() / ((a - a.mean(0)) ** 2).sum(), rel=1e-9)
    norms = [(math.hypot(*p), math.hypot(*q)) for p, q in zip(a, b, strict=True)]
    cosines = [(p * q).sum() / (m * n) for p, q, (m, n) in zip(a, b, norms, strict=True)]
    assert score(Cosine, x, x_hat, 64) == pytest.approx(sum(cosines) / ROWS, rel=1e-9)
    assert score(NormRatio, x, x_hat, 64) == pytest.approx(sum(n / m for m, n in norms) / ROWS, rel=1e-9)
    assert score(L0, x, x_hat, 64) == pytest.approx(sum(int((row > 5).sum()) for row in x_hat) / ROWS)


def test_interval_holds_the_value_and_narrows_with_data(x: torch.Tensor, x_hat: torch.Tensor) -> None:
    def width(n: int) -> float:
        accumulator = Accumulator([Fvu])
        for i in range(0, n, 7):
            accumulator.update(Reconstruction(x[i : i + 7], Codes.from_dense(x[i : i + 7]), x_hat[i : i + 7]))
        found = accumulator.scores()[0]
        assert found.interval is not None and found.interval[0] < found.value < found.interval[1]
        return found.interval[1] - found.interval[0]

    assert width(ROWS) < 0.7 * width(ROWS // 5)


def test_merging_blocks_keeps_the_value(x: torch.Tensor, x_hat: torch.Tensor) -> None:
    few, many = Accumulator([Fvu], max_blocks=8), Accumulator([Fvu])
    for i in range(0, ROWS, 5):
        chunk = Reconstruction(x[i : i + 5], Codes.from_dense(x[i : i + 5]), x_hat[i : i + 5])
        few.update(chunk)
        many.update(chunk)
    assert few.n_blocks <= 9
    assert few.scores()[0].value == pytest.approx(many.scores()[0].value, rel=1e-12)
    assert few.scores()[0].n == ROWS


def test_firing_rates_count_what_is_not_zero() -> None:
    rates = FiringRates(4)
    dense = torch.tensor([[0.0, 1, 0, 2], [0, 0, 0, 3], [0, 4, 0, 1]])
    for row in dense:
        rates.update(Codes.from_dense(row[None]))
    assert rates.counts.tolist() == [0, 2, 0, 3]
    assert rates.maxima.tolist() == [0, 4, 0, 3]
    measured = {one.definition.name: one.values.tolist() for one in firing_scores(rates)}
    assert measured["dead_fraction"] == [1, 0, 1, 0] and measured["dense_fraction"] == [0, 1, 0, 1]
    assert measured["firing_rate"] == pytest.approx([0, 2 / 3, 0, 1])
    assert sum(rates.histogram()["latents"]) == 2


def test_errors_name_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"unknown metric 'fvuu'\. Did you mean 'fvu'"):
        find_metric("fvuu")
    with pytest.raises(EvaluationError, match="fvu: no data"):
        Accumulator([Fvu]).scores()

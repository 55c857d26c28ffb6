"""Sparse sums: planted ones are found, and weights are the best that are not negative."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sae.lab.words.sums import decompose, equation, jaccard, non_negative


def naive(directions: torch.Tensor, target: torch.Tensor) -> float:
    """Return the smallest squared distance, by trying every subset of terms."""
    best = float(target @ target)
    for size in range(1, len(directions) + 1):
        for chosen in combinations(range(len(directions)), size):
            some = directions[list(chosen)]
            weights = torch.linalg.lstsq(some.T, target[:, None]).solution[:, 0]
            if (weights >= 0).all():
                best = min(best, float((target - weights @ some).square().sum()))
    return best


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_weights_are_the_best_that_are_not_negative(seed: int, n_terms: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(n_terms, 7, generator=generator, dtype=torch.float64)
    target = torch.randn(7, generator=generator, dtype=torch.float64)
    weights = non_negative(directions, target)
    assert (weights >= 0).all()
    assert float((target - weights @ directions).square().sum()) == pytest.approx(naive(directions, target), abs=1e-9)


def test_a_planted_sum_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(300, 64, generator=generator), dim=1)
    target = 3 * directions[7] + 2 * directions[40] + 1.5 * directions[211]
    found = decompose(target, directions, 3)
    assert set(found.terms) == {7, 40, 211} and found.cosine == pytest.approx(1, abs=1e-6)
    weights = dict(zip(found.terms, found.weights, strict=True))
    assert weights[7] / weights[211] == pytest.approx(2, rel=1e-4)
    assert decompose(target, 10 * directions, 3).terms == found.terms, "lengths of directions mean nothing"


def test_nothing_is_taken_that_does_not_help() -> None:
    directions = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 0, 0]])
    found = decompose(torch.tensor([1.0, 1.0, 0]), directions, 3)
    assert found.terms == (0,) and found.cosine == pytest.approx(0.5**0.5)
    assert decompose(torch.tensor([0, 1.0, 0]), directions, 3).terms == ()


def test_jaccard_and_equations() -> None:
    assert jaccard([(1, 2), (2, 3), (2, 1)]) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert jaccard([(1, 2)]) == 1
    assert equation((0.25, 0.5), ("sad", "happy")) == "0.50 happy + 0.25 sad"

"""Contrasts of plain numbers, beside naive references and what chance does."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae.errors import EvaluationError
from sae.features.live.contrast import LEVEL, contrast, memberships


def sparse(n_items: int, n_units: int, seed: int, rate: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n_items, n_units, generator=generator)
    return x * (torch.rand(n_items, n_units, generator=generator) < rate)


def pairwise_auc(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([(x > y) + (x == y) / 2 for x in a for y in b]))


@settings(max_examples=25, deadline=None)
@given(n_a=st.integers(1, 7), n_b=st.integers(1, 7), seed=st.integers(0, 1000))
def test_areas_are_those_of_all_pairs(n_a: int, n_b: int, seed: int) -> None:
    a, b = sparse(n_a, 9, seed).round(decimals=1), sparse(n_b, 9, seed + 1).round(decimals=1)
    found = contrast(a, b, 50)
    for unit in range(9):
        assert found.auc[unit] == pytest.approx(pairwise_auc(a[:, unit].numpy(), b[:, unit].numpy()), abs=1e-9)
    other = contrast(b, a, 50)
    np.testing.assert_allclose(found.auc + other.auc, 1, atol=1e-12)
    np.testing.assert_allclose(found.fires, [(one > 0).double().mean(0).numpy() for one in (a, b)])


def test_differences_are_in_pooled_standard_deviations() -> None:
    a, b = sparse(12, 5, 0), sparse(9, 5, 1)
    found = contrast(a, b, 10).difference
    for unit in range(5):
        x, y = a[:, unit].double().numpy(), b[:, unit].double().numpy()
        deviation = np.sqrt((11 * x.var(ddof=1) + 8 * y.var(ddof=1)) / 19)
        assert found[unit] == pytest.approx((x.mean() - y.mean()) / deviation, rel=1e-6)
    constant = contrast(torch.ones(3, 2), torch.zeros(3, 2), 10)
    assert np.isnan(constant.difference).all() and (constant.auc == 1).all()


def test_with_few_items_all_deals_are_counted() -> None:
    x = sparse(8, 30, 3, 0.6)
    found = contrast(x[:3], x[3:], 1000)
    assert found.exact and found.n_permutations == comb(8, 3) and found.smallest_p == pytest.approx(1 / 56)
    largest = []
    for chosen in combinations(range(8), 3):
        rest = [i for i in range(8) if i not in chosen]
        effects = [abs(pairwise_auc(x[list(chosen), u].numpy(), x[rest, u].numpy()) - 0.5) for u in range(30)]
        largest.append(max(effects))
    for unit in range(30):
        expected = np.mean(np.array(largest) >= abs(found.effect[unit]) - 1e-9)
        assert found.p[unit] == pytest.approx(expected)


@pytest.mark.parametrize(("n_a", "n_b", "smallest"), [(1, 1, 1.0), (3, 3, 0.1), (2, 4, 1 / 15), (4, 4, 2 / 70)])
def test_the_smallest_p_is_what_perfect_separation_gets(n_a: int, n_b: int, smallest: float) -> None:
    found = contrast(torch.ones(n_a, 1), torch.zeros(n_b, 1), 1000)
    assert found.smallest_p == pytest.approx(smallest) and found.p[0] == pytest.approx(smallest)
    # A single perfect unit passes as soon as any effect could.
    assert (found.threshold is not None and found.effect[0] > found.threshold) == (smallest <= LEVEL)


def test_among_many_units_few_items_separate_by_chance() -> None:
    x = torch.rand(8, 3000, generator=torch.Generator().manual_seed(0))
    found = contrast(x[:4], x[4:], 1000)
    assert found.smallest_p <= LEVEL and found.threshold is None and found.p.min() > 0.9


def test_chance_passes_the_threshold_as_often_as_it_says() -> None:
    passed = 0
    for seed in range(300):
        x = sparse(30, 40, seed)
        found = contrast(x[:15], x[15:], 199, seed)
        assert found.threshold is not None
        passed += bool((np.abs(found.effect) > found.threshold).any())
    # Binomial(300, 0.05): 15 expected, 29 at the far end.
    assert 3 <= passed <= 29


def test_passing_means_a_small_p() -> None:
    for seed in range(5):
        x = sparse(24, 60, seed)
        x[:12, :3] += torch.tensor([0.2, 0.4, 0.8])
        found = contrast(x[:12], x[12:], 300, seed)
        assert found.threshold is not None
        np.testing.assert_array_equal(np.abs(found.effect) > found.threshold, found.p <= LEVEL)


def test_a_planted_difference_is_found_in_both_directions() -> None:
    x = sparse(80, 500, 5)
    x[:40, 7] += 0.7
    x[40:, 9] += 0.7
    found = contrast(x[:40], x[40:], 500)
    assert found.threshold is not None
    assert set(np.flatnonzero(np.abs(found.effect) > found.threshold)) == {7, 9}
    assert found.auc[7] > 0.8 and found.auc[9] < 0.2 and found.best in (7, 9)
    again = contrast(x[:40], x[40:], 500)
    np.testing.assert_array_equal(found.p, again.p)


def test_blocks_of_units_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sparse(20, 33, 2)
    whole = contrast(x[:10], x[10:], 100)
    monkeypatch.setattr("sae.features.live.contrast.UNITS_AT_ONCE", 5)
    parts = contrast(x[:10], x[10:], 100)
    np.testing.assert_array_equal(whole.p, parts.p)
    assert whole.threshold == parts.threshold


def test_deals_keep_the_sizes() -> None:
    dealt, exact = memberships(5, 9, 200, 0)
    assert not exact and dealt.shape == (14, 200) and (dealt.sum(0) == 5).all()
    assert len(np.unique(dealt, axis=1).T) > 150


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(2, 3), "each set needs one"),
        (torch.zeros(2, 3), torch.zeros(2, 4), "3 units in the first set, 4 in the second"),
        (torch.full((2, 3), torch.nan), torch.zeros(2, 3), "NaN or infinite"),
        (torch.zeros(4000, 1), torch.zeros(1, 1), "4000 are the most"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        contrast(a, b)

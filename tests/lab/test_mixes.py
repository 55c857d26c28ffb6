"""Mixes whose labels are known at every level, and differences that are planted or are not there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae.errors import EvaluationError
from sae.lab.levels.mixes import (
    Change,
    band,
    chance_band,
    densities,
    draw,
    intervals,
    jensen_shannon,
    level_edges,
    levels_of,
    recalls,
    shares,
    significant,
    tally,
)

COUNTS = st.lists(st.integers(0, 30), min_size=3, max_size=3).filter(any).map(lambda row: np.array(row, dtype=float))


def planted(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Values from -1 to 1, and a label that is 0 below zero, 1 up to 0.5, and 2 above."""
    values = np.linspace(-1, 1, n)
    return values, np.where(values < 0, 0, np.where(values < 0.5, 1, 2))


def test_the_mix_at_each_level_is_the_planted_one() -> None:
    values, label = planted()
    edges = level_edges(values, 8)
    level = levels_of(values, edges)
    np.testing.assert_allclose(edges, np.linspace(-1, 1, 9))
    chosen = draw(level, 8, 50, seed=1)
    counts = tally(level[chosen], label[chosen], 8, 3)
    assert counts.sum(1).tolist() == [50] * 8
    np.testing.assert_array_equal(shares(counts).argmax(1), [0, 0, 0, 0, 1, 1, 2, 2])
    assert shares(counts).max(1).tolist() == [1.0] * 8
    assert draw(level, 8, 50, seed=1).tolist() == chosen.tolist() != draw(level, 8, 50, seed=2).tolist()


def test_weights_undo_the_equal_draws() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-3 * values))).astype(int)
    edges = level_edges(values, 10)
    level = levels_of(values, edges)
    mass = np.bincount(level, minlength=10) / len(level)
    every = shares(tally(level, label, 10, 2))
    exact = [(label[values >= low] == 1).sum() / (label == 1).sum() for low in edges[:-1]]
    np.testing.assert_allclose(recalls(every, mass)[:, 1], exact)
    chosen = draw(level, 10, 100, seed=0)
    sampled = shares(tally(level[chosen], label[chosen], 10, 2))
    np.testing.assert_allclose(recalls(sampled, mass)[:, 1], exact, atol=0.05)
    histogram = np.histogram(values[label == 1], edges, density=True)[0]
    np.testing.assert_allclose(densities(every, mass, edges)[:, 1], histogram)


def test_wilson_intervals_match_the_closed_form() -> None:
    low, high = intervals(np.array([0, 5, 10, 0]), np.array([10, 10, 10, 0]))
    np.testing.assert_allclose(low[:3], [0, 0.236593, 0.722467], atol=1e-5)
    np.testing.assert_allclose(high[:3], [0.277533, 0.763407, 1], atol=1e-5)
    assert np.isnan(low[3]) and np.isnan(high[3])


def test_dealt_labels_stay_in_the_band_in_95_of_100_deals() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(1000) < 200
    level = np.repeat(np.arange(5), 200)
    chosen = draw(level, 5, 40, seed=0)
    low, high = chance_band(np.full(5, 40), 200, 1000)
    inside = 0
    for _ in range(400):
        dealt = rng.permutation(label)[chosen]
        share = np.array([dealt[level[chosen] == one].mean() for one in range(5)])
        inside += bool(((share >= low) & (share <= high)).all())
    assert inside / 400 >= 0.95 and (high - low).max() < 0.5


@given(COUNTS, COUNTS)
def test_the_divergence_is_symmetric_between_0_and_1(p: np.ndarray, q: np.ndarray) -> None:
    found = float(jensen_shannon(p, q))
    assert 0 <= found <= 1 + 1e-9 and found == pytest.approx(float(jensen_shannon(q, p)))
    assert float(jensen_shannon(p, 3 * p)) == pytest.approx(0, abs=1e-9)


def test_the_divergence_of_known_mixes() -> None:
    assert float(jensen_shannon(np.array([1.0, 0]), np.array([0, 1.0]))) == pytest.approx(1)
    expected = 0.5 * (0.5 * np.log2(0.5 / 0.75) + 0.5 * np.log2(0.5 / 0.25)) + 0.5 * np.log2(1 / 0.75)
    assert float(jensen_shannon(np.array([1.0, 1]), np.array([1.0, 0]))) == pytest.approx(expected)


def test_equal_mixes_are_within_their_control_and_planted_changes_beyond_it() -> None:
    rng = np.random.default_rng(3)
    ps = []
    for seed in range(200):
        medium, strong = (np.bincount(rng.integers(0, 20, n), minlength=20) for n in (80, 30))
        change = Change.of(medium, strong, 199, seed)
        assert change.divergence > 0.02, "by chance alone it is far from 0"
        ps.append(change.p)
    assert np.mean(np.array(ps) <= 0.05) < 0.1 and 0.4 < np.mean(ps) < 0.6
    changed = Change.of(np.array([40, 5, 0]), np.array([2, 5, 20]), 999, 0)
    assert changed.p == 0.001 and changed.excess > 0.3 and changed.n == (45, 27)


def test_of_many_units_only_the_planted_changes_are_significant() -> None:
    rng = np.random.default_rng(5)
    changes: list[Change | None] = [
        Change.of(rng.multinomial(60, [0.25] * 4), rng.multinomial(30, [0.25] * 4), 499, seed) for seed in range(100)
    ]
    changes[7] = Change.of(np.array([50, 5, 5, 0]), np.array([2, 3, 5, 20]), 499, 7)
    changes[9] = None
    limit, found = significant(changes)
    assert limit > 3 and found[7] and sum(found) <= 2 and not found[9]
    assert significant([None]) == (float("inf"), [False])


def test_a_band_has_one_item_of_each_example() -> None:
    values = np.array([0.5, 0.6, 0.69, 0.7, 0.95, 1.0, -1.0])
    example = np.array([0, 0, 1, 2, 3, 4, 5])
    medium = band(values, 1.0, (0.5, 0.7), example, seed=0)
    assert set(example[medium]) == {0, 1} and len(medium) == 2
    assert sorted(band(values, 1.0, (0.9, 1.0), example, seed=0)) == [4, 5]
    assert not len(band(-values, -0.5, (0.5, 0.7), example, seed=0))


def test_a_unit_without_levels_says_so() -> None:
    with pytest.raises(EvaluationError, match="answers 2 to all 5 items"):
        level_edges(np.full(5, 2.0), 4)

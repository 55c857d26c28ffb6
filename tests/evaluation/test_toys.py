import dataclasses
from pathlib import Path

import pytest
import torch
from scipy.stats import multivariate_normal, norm

from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError
from sae.evaluation.inferred import Inferred
from sae.evaluation.recovery import Recovery
from sae.evaluation.sample import Units
from sae.evaluation.toys import (
    Toy,
    correlated,
    hierarchical,
    orthogonal,
    pentagon,
    superposition,
    toy_sample,
    true_dictionary,
    two_modality,
)
from scripts import pentagon as script

N = 20_000


def draw(toy: Toy) -> tuple[torch.Tensor, torch.Tensor]:
    return toy.sample(N, torch.Generator().manual_seed(0))


def test_five_concepts_in_two_neurons_are_all_recovered(tmp_path: Path) -> None:
    toy = pentagon()
    dictionary = script.train_best(toy, TopKConfig(d_sae=5, k=1), n_steps=600)
    recovery = Recovery.of(dictionary.W_dec, toy.directions)
    assert recovery.best.min() > 0.98
    picture = script.draw(toy, dictionary, recovery, tmp_path / "pentagon")
    assert picture.is_file() and picture.with_suffix(".pdf").is_file() and picture.with_suffix(".csv").is_file()


@pytest.mark.parametrize(
    "toy",
    [
        superposition(n_features=20, d_in=8, l0=3),
        orthogonal(n_features=12, d_in=16, l0=2, exponent=1.0),
        hierarchical(n_roots=3, branching=2, depth=2, d_in=32),
        correlated(n_features=12, d_in=16, l0=2, exponent=0.5),
    ],
    ids=["superposition", "orthogonal", "hierarchical", "correlated"],
)
def test_features_are_as_frequent_as_stated(toy: Toy) -> None:
    x, fired = draw(toy)
    assert x.shape == (N, toy.directions.shape[1])
    torch.testing.assert_close(toy.directions.norm(dim=1), torch.ones(len(toy.directions)))
    torch.testing.assert_close(fired.float().mean(0), toy.probabilities, atol=0.015, rtol=0)
    assert fired.sum(1).float().mean().item() == pytest.approx(toy.l0, abs=0.1)


def test_frequencies_fall_as_a_power_of_the_rank() -> None:
    probabilities = superposition(n_features=100, d_in=8, l0=3, exponent=1.0).probabilities
    torch.testing.assert_close(probabilities / probabilities[0], 1 / torch.arange(1, 101))


def test_a_child_fires_only_under_its_parent_and_as_often_as_stated() -> None:
    toy = hierarchical(n_roots=2, branching=3, depth=2, d_in=32, probability=0.4, share=0.5)
    assert toy.parents.tolist()[:8] == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert len(toy.parents) == 2 + 6 + 18
    _, fired = draw(toy)
    for child, parent in enumerate(toy.parents.tolist()):
        if parent >= 0:
            assert not (fired[:, child] & ~fired[:, parent]).any()
            assert fired[fired[:, parent], child].float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_features_of_a_block_fire_together_as_a_gaussian_copula_says() -> None:
    toy = correlated(n_features=8, d_in=8, l0=1.6, correlation=0.6, block=4)
    _, fired = draw(toy)
    together = fired.float().T @ fired.float() / N
    threshold = norm.ppf(0.2)
    expected = multivariate_normal(cov=[[1, 0.6], [0.6, 1]]).cdf([threshold, threshold])
    inside, across = together[:4, :4][~torch.eye(4).bool()], together[:4, 4:]
    torch.testing.assert_close(inside, torch.full((12,), float(expected)), atol=0.012, rtol=0)
    torch.testing.assert_close(across, torch.full((4, 4), 0.04), atol=0.008, rtol=0)


def test_features_of_one_modality_are_silent_in_the_other() -> None:
    toy = two_modality(n_shared=4, n_own=3, d_in=16, probability=0.2, gap=3.0)
    drawn = toy.draw(N, torch.Generator().manual_seed(0))
    x, fired, second = drawn.x, drawn.fired, torch.from_numpy(drawn.factors["modality"]) == 1
    assert second.float().mean().item() == pytest.approx(0.5, abs=0.02)
    for side, absent in ((~second, slice(7, 10)), (second, slice(4, 7))):
        rates = fired[side].float().mean(0)
        assert rates[absent].sum() == 0
        assert (rates > 0).sum() == 7
        torch.testing.assert_close(rates[rates > 0], torch.full((7,), 0.2), atol=0.02, rtol=0)
    assert fired.sum(1).float().mean().item() == pytest.approx(toy.l0, abs=0.05)
    torch.testing.assert_close(x @ toy.offsets.T / 9, torch.stack([~second, second], 1).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "toy",
    [
        orthogonal(n_features=12, d_in=16, l0=2),
        hierarchical(n_roots=3, branching=2, depth=1, d_in=16),
        correlated(n_features=12, d_in=12, l0=2),
        two_modality(n_shared=4, n_own=3, d_in=16),
        # Not every draw of 20 directions in 14 dimensions is far enough apart for this.
        dataclasses.replace(superposition(n_features=20, d_in=14, l0=1.2, seed=2), noise=0.0),
        two_modality(n_shared=12, n_own=3, d_in=16, probability=0.05),
    ],
    ids=["orthogonal", "hierarchical", "correlated", "two_modality", "superposition", "superposed_modalities"],
)
def test_the_true_dictionary_finds_the_codes_that_were_drawn(toy: Toy) -> None:
    drawn = toy.draw(N // 4, torch.Generator().manual_seed(0))
    x, dictionary = drawn.x, true_dictionary(toy)
    codes = dictionary.encode(x)
    assert torch.equal(codes.dense() > 0, drawn.fired)
    torch.testing.assert_close(codes.dense(), drawn.codes, atol=1e-4, rtol=0)
    assert len(toy.directions) <= x.shape[1] or isinstance(dictionary, Inferred)
    # What is not rebuilt is the same within a modality: its offset.
    error = x - dictionary.decode(codes)
    assert torch.unique((error * 1e2).round(), dim=0).shape[0] == (2 if hasattr(toy, "offsets") else 1)


def test_leaders_can_fire_without_each_other_and_children_not_without_parents() -> None:
    tree = hierarchical(n_roots=2, branching=2, depth=1, d_in=8)
    assert tree.leaders.tolist() == [0, 1]
    fired = torch.tensor([[1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).bool()
    assert tree.possible(fired).tolist() == [True, False, True, True]
    assert tree.possible(draw(tree)[1]).all()
    assert correlated(n_features=6, d_in=6, l0=1, block=3).leaders.tolist() == [0, 3]
    assert two_modality(n_shared=2, n_own=1, d_in=8).leaders.tolist() == [2, 3, 0, 1]
    assert orthogonal(n_features=3, d_in=3, l0=1).leaders.tolist() == [0, 1, 2]


def test_a_sample_of_a_toy_has_the_true_features_as_labels() -> None:
    toy = two_modality(n_shared=3, n_own=2, d_in=16)
    sample = toy_sample(toy, 2000, seed=1)
    units = Units("latents", true_dictionary(toy), sample)
    assert sample.table.names == tuple(f"feature_{i}=on" for i in range(7))
    assert set(sample.factors) - set(sample.labels) == {"modality"}
    for area in units.auc:
        torch.testing.assert_close(area.diagonal(), torch.ones(7, dtype=torch.float64))
    assert 0.4 < sample.match.float().mean() < 0.6
    assert torch.equal(toy_sample(toy, 2000, seed=1).x, sample.x)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and n_features = 20"):
        superposition(n_features=20, d_in=8, l0=20)
    with pytest.raises(ConfigError, match="20 directions cannot be orthogonal in 8"):
        orthogonal(n_features=20, d_in=8, l0=2)
    with pytest.raises(ConfigError, match=r"between 0 and 1, got 1\.5"):
        correlated(n_features=4, d_in=8, l0=1, correlation=1.5)


def test_a_dictionary_of_the_same_seed_starts_from_other_directions() -> None:
    toy = superposition(n_features=20, d_in=14, l0=1.2, seed=5)
    start = torch.randn(20, 14, generator=torch.Generator().manual_seed(5))
    assert (torch.cosine_similarity(toy.directions, start) < 0.9).all()

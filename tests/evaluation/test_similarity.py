"""Similarity scores against loops over pairs, and on units whose items are known to be alike or not."""

import math

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.responses import DenseResponses, Responses, SparseResponses
from sae.evaluation.sample import Sample, Units
from sae.evaluation.similarity import (
    TOP_ITEMS,
    Similarity,
    factor_embedding,
    mean_cosine,
    similarity_details,
    similarity_scores,
)
from sae.tensors import Kind


def sparse(dense: torch.Tensor) -> SparseResponses:
    items, units = dense.nonzero(as_tuple=True)
    return SparseResponses.of_entries(items, units, dense[items, units], *dense.shape)


def both(dense: torch.Tensor) -> list[Responses]:
    return [sparse(dense), DenseResponses(lambda units: dense[:, units], *dense.shape)]


def sample_of(x: torch.Tensor, n_rows: int = 1, class_first: bool = False, **factors: np.ndarray) -> Sample:
    """Items of `n_rows` rows each, whose vectors are the activations of raw neurons."""
    n_items = len(x) // n_rows
    kind = torch.full((len(x),), int(Kind.PATCH), dtype=torch.uint8)
    if class_first:
        kind[::n_rows] = int(Kind.CLASS)
    rows = Provenance(
        torch.arange(n_items).repeat_interleave(n_rows),
        torch.arange(n_rows, dtype=torch.int32).repeat(n_items),
        kind,
    )
    names = {family: [str(number) for number in range(50)] for family in factors}
    match = torch.rand(n_items, generator=torch.Generator().manual_seed(0)) < 0.5
    return Sample(x=x, rows=rows, pooled=True, labels=factors, factors=factors, label_names=names, match=match)


def neurons(sample: Sample) -> Units:
    width = sample.x.shape[1]
    return Units("neurons", Identity(IdentityConfig(d_sae=width), width), sample)


def naive_score(a: np.ndarray, embedding: np.ndarray, baseline: float) -> float:
    """The pairs one by one, as the paper defines them."""
    if a.max() == a.min():
        return baseline
    a = (a - a.min()) / (a.max() - a.min())
    above = below = 0.0
    for n in range(len(a)):
        for m in range(n):
            above += a[n] * a[m] * float(embedding[n] @ embedding[m])
            below += a[n] * a[m]
    return above / below if below > 0 else baseline


@pytest.mark.parametrize("signed", [False, True])
def test_monosemanticity_is_the_mean_over_pairs(signed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(40, 9, generator=generator)
    dense = dense if signed else dense * (torch.rand(dense.shape, generator=generator) < 0.3).float()
    dense[:, 0], dense[:, 1], dense[:, 2] = 0, 0, 2.5
    dense[7, 1] = 3.0
    dense[:, 3] = dense[:, 3].abs() + 0.1
    vectors = torch.randn(40, 700, generator=generator) + 0.5
    vectors[5] = 0
    similarity = Similarity.of_vectors("random", vectors)
    embedding = torch.nn.functional.normalize(vectors, dim=1).double().numpy()
    pairs = [embedding[n] @ embedding[m] for n in range(40) for m in range(n)]
    assert similarity.baseline == pytest.approx(np.mean(pairs), abs=1e-9)
    wanted = [naive_score(column, embedding, similarity.baseline) for column in dense.double().numpy().T]
    for responses in both(dense):
        assert mean_cosine(responses, similarity).tolist() == pytest.approx(wanted, abs=1e-6)


def test_clarity_and_entropy_are_those_of_the_items_on_top() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(120, 6, generator=generator).relu()
    x[:, 4] = 0
    x[3:, 5] = 0
    number = torch.randint(7, (120,), generator=generator).numpy()
    sample = sample_of(x, concept=number)
    vectors = torch.randn(120, 5, generator=generator) + 0.3
    similarity = Similarity.of_vectors("random", vectors)
    found = {one.definition.name: one.values for one in similarity_scores(neurons(sample), similarity, "concept")}
    embedding = torch.nn.functional.normalize(vectors, dim=1).double()
    for unit in range(6):
        top = sorted(range(120), key=lambda item: -x[item, unit])[:TOP_ITEMS]
        top = [item for item in top if x[item, unit] > 0]
        clarity, entropy = 0.0, 1.0
        if len(top) > 1:
            cosine = np.mean([float(embedding[n] @ embedding[m]) for n in top for m in top if n != m])
            clarity = (cosine - similarity.baseline) / (1 - similarity.baseline)
            mass = np.zeros(7)
            for item in top:
                mass[number[item]] += float(x[item, unit])
            share = mass[mass > 0] / mass.sum()
            entropy = -(share * np.log(share)).sum() / math.log(min(len(top), 7))
        assert float(found["clarity"][unit]) == pytest.approx(clarity, abs=1e-6)
        assert float(found["label_entropy"][unit]) == pytest.approx(entropy, abs=1e-6)
    assert found["clarity"][4] == 0 and found["label_entropy"][4] == 1


def test_items_that_tie_with_the_last_one_count() -> None:
    x = torch.zeros(100, 1)
    x[:30] = 1.0
    concept = np.arange(100) // 30
    sample = sample_of(x, concept=concept)
    scores = similarity_scores(neurons(sample), Similarity.of_factors(sample), "concept")
    assert {one.definition.name: float(one.values) for one in scores} == pytest.approx(
        {"monosemanticity": 1, "monosemanticity_excess": 1, "clarity": 1, "label_entropy": 0}, abs=1e-6
    )


def test_perfect_units_score_1_and_shuffled_labels_chance() -> None:
    generator = torch.Generator().manual_seed(2)
    concept = torch.randint(20, (3000,), generator=generator)
    strength = 0.5 + torch.rand(3000, 1, generator=generator)
    sample = sample_of(torch.nn.functional.one_hot(concept, 20) * strength, concept=concept.numpy())
    units = neurons(sample)
    perfect = {
        one.definition.name: one.score().value
        for one in similarity_scores(units, Similarity.of_factors(sample, ["concept"]), "concept")
    }
    assert perfect["monosemanticity_excess"] == pytest.approx(1, abs=1e-6)
    assert perfect["clarity"] == pytest.approx(1, abs=1e-6) and perfect["label_entropy"] == pytest.approx(0, abs=1e-6)
    dealt = sample.shuffled(0)
    chance = {
        one.definition.name: one.score()
        for one in similarity_scores(neurons(dealt), Similarity.of_factors(dealt, ["concept"]), "concept")
    }
    for name in ("monosemanticity_excess", "clarity"):
        assert chance[name].value == pytest.approx(0, abs=0.01)
    assert chance["label_entropy"].value > 0.7


def test_random_activations_score_the_baseline_whatever_the_space() -> None:
    generator = torch.Generator().manual_seed(3)
    similarity = Similarity.of_vectors("crowded", torch.randn(800, 16, generator=generator) + 1.0)
    assert similarity.baseline > 0.4
    dense = torch.rand(800, 64, generator=generator) * (torch.rand(800, 64, generator=generator) < 0.2)
    for responses in both(dense):
        excess = similarity.above_chance(mean_cosine(responses, similarity))
        assert float(excess.mean()) == pytest.approx(0, abs=0.005)


def test_factors_weigh_the_same_and_silence_resembles_nothing() -> None:
    facet, concept = np.array([0, 0, 1, -1]), np.array([0, 1, 1, -1])
    sample = sample_of(torch.ones(4, 1), facet=facet, concept=concept, size=np.array([0.1, 0.2, 0.3, 0.4]))
    embedding = factor_embedding(sample).dense().float()
    cosine = embedding @ embedding.T
    wanted = [[1, 0.5, 0, 0], [0.5, 1, 0.5, 0], [0, 0.5, 1, 0], [0, 0, 0, 0]]
    assert torch.allclose(cosine, torch.tensor(wanted), atol=1e-6)
    assert factor_embedding(sample, ["facet"]).dense().shape == (4, 2)
    words = sample_of(torch.ones(3, 1), word=np.array(["a", "", "a"]))
    assert factor_embedding(words).dense().tolist() == [[1], [0], [1]]


def test_the_class_token_is_scored_apart() -> None:
    x = torch.zeros(120, 1)
    x[0:30:3] = 1.0  # class tokens of the items 0 to 9
    x[1::6] = 1.0  # a patch of every other item
    concept = np.array([0] * 10 + [1] * 30)
    sample = sample_of(x, 3, class_first=True, concept=concept)
    found = {
        one.definition.name: float(one.values)
        for one in similarity_scores(neurons(sample), Similarity.of_factors(sample), "concept")
    }
    assert found["monosemanticity_excess_class"] == pytest.approx(1)
    assert found["clarity_class"] == pytest.approx(1) and found["label_entropy_class"] == pytest.approx(0)
    assert abs(found["monosemanticity_excess"]) < 0.1 and found["label_entropy"] > 0.5


def test_what_cannot_be_compared_is_an_error() -> None:
    sample = sample_of(torch.ones(3, 1), concept=np.array([0, 1, -1]), size=np.array([0.1, 0.2, 0.3]))
    similarity = Similarity.of_factors(sample, ["concept"])
    for family, message in (("concpt", "no family 'concpt'"), ("size", "continuous"), ("concept", "1 of 3 items")):
        with pytest.raises(EvaluationError, match=message):
            similarity_scores(neurons(sample), similarity, family)
    with pytest.raises(EvaluationError, match="all items are the same"):
        Similarity.of_vectors("flat", torch.ones(5, 2))
    with pytest.raises(EvaluationError, match="NaN"):
        Similarity("broken", torch.full((5, 2), math.nan))
    assert similarity_details(similarity, "concept") == {
        "embedding": "concept",
        "circular": False,
        "baseline": similarity.baseline,
        "label_entropy_family": "concept",
    }

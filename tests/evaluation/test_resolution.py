import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig, Pca, PcaConfig
from sae.evaluation.meanings import related_labels
from sae.evaluation.metric import Measured
from sae.evaluation.resolution import Carriers, Mixtures, resolution_details, resolution_scores
from sae.evaluation.resolution_picture import resolution_picture
from sae.evaluation.sample import Sample, Units
from sae.evaluation.toys import orthogonal, toy_sample, true_dictionary

D_IN = 12
TOY = orthogonal(D_IN, D_IN, 0.8, seed=1)


def identity() -> Dictionary:
    return Identity(IdentityConfig(d_sae=D_IN), D_IN)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return toy_sample(TOY, 4000)


@pytest.fixture(scope="module")
def mixtures(sample: Sample) -> Mixtures:
    return Mixtures.of(Units("neurons", identity(), sample), related_labels(sample.table))


def values(found: list[Measured]) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in found}


def test_the_true_features_resolve_every_mixture(sample: Sample, mixtures: Mixtures) -> None:
    found = values(resolution_scores(Units("true", true_dictionary(TOY), sample), mixtures))
    assert len(mixtures.neuron) > 15
    assert (found["resolution_rate"] == 1).all()
    assert (found["resolved_neurons"] == 1).all()
    assert found["concept_variance_explained"].min() > 0.95
    assert (found["polysemantic_share"] == 0).all()


def test_neurons_shuffled_labels_and_silent_units_resolve_nothing(sample: Sample, mixtures: Mixtures) -> None:
    silent = true_dictionary(TOY)
    silent.b_enc.data.fill_(-100.0)
    for units in (
        Units("neurons", identity(), sample),
        Units("shuffled", true_dictionary(TOY), sample.shuffled(0)),
        Units("silent", silent, sample),
    ):
        found = values(resolution_scores(units, mixtures))
        for name in ("resolution_rate", "resolved_neurons", "concept_variance_explained"):
            assert (found[name] == 0).all(), (units.name, name)
    neurons = values(resolution_scores(Units("neurons", identity(), sample), mixtures))
    assert neurons["polysemantic_share"].sum() == len(mixtures.neuron.unique())


def naive(units: Units, mixtures: Mixtures) -> tuple[list[float], list[float]]:
    """Every share and every judgement, one pair and one unit at a time."""
    sample, related = units.sample, mixtures.related
    codes = units.responses.columns(torch.arange(units.n_units)).double().numpy()
    x, W_dec = sample.x.double().numpy(), units.dictionary.W_dec.double().numpy()
    columns = sample.table.columns.numpy()
    halves = [sample.match.numpy(), ~sample.match.numpy()]

    def auc(unit: int, label: int, half: np.ndarray) -> float:
        inside = codes[half & columns[:, label], unit]
        outside = codes[half & ~columns[:, label], unit]
        return float((np.sign(inside[:, None] - outside[None]) / 2 + 0.5).mean())

    aucs = np.array(
        [
            [[auc(unit, label, half) for label in range(columns.shape[1])] for unit in range(units.n_units)]
            for half in halves
        ]
    )

    def is_mixed(answered: np.ndarray) -> bool:
        left, n = set(np.flatnonzero(answered).tolist()), 0
        while left:
            n, reached = n + 1, {left.pop()}
            while near := {b for a in reached for b in left if related[a, b]}:
                reached, left = reached | near, left - near
        return n > 1

    def share(unit: int, neuron: int, label: int, half: np.ndarray) -> float:
        inside = half & columns[:, label]
        rise = codes[inside, unit].mean() - codes[half, unit].mean()
        return W_dec[unit, neuron] * rise / (x[inside, neuron].mean() - x[half, neuron].mean())

    both = aucs.min(0)
    resolved, explained = [], []
    for neuron, label in zip(mixtures.neuron.tolist(), mixtures.label.tolist(), strict=True):
        fit = [
            aucs[0, j, label] + (share(j, neuron, label, halves[0]) >= 0.1 and not is_mixed(aucs[0, j] > 0.8))
            for j in range(units.n_units)
        ]
        best = int(np.argmax(fit))
        carried = share(best, neuron, label, halves[1]) >= 0.1
        resolved.append(float(aucs[1, best, label] > 0.9 and carried and not is_mixed(both[best] > 0.8)))
        standing = [j for j in range(units.n_units) if both[j, label] > 0.9 and not is_mixed(both[j] > 0.8)]
        total = sum(share(j, neuron, label, halves[1]) for j in standing)
        explained.append(max(0.0, 1 - (1 - total) ** 2))
    return resolved, explained


@pytest.mark.parametrize("kind", ["noisy", "pca"])
def test_agreement_with_a_naive_computation(kind: str, mixtures: Mixtures) -> None:
    sample = toy_sample(TOY, 1200, seed=3)
    if kind == "noisy":
        dictionary = true_dictionary(TOY)
        # A few latents that mix two features, and a few that carry little.
        dictionary.W_enc_rows.data[:3] += dictionary.W_enc_rows.data[3:6]
        dictionary.W_dec.data[6:8] *= 0.05
    else:
        dictionary = Pca(PcaConfig(d_sae=2 * D_IN), D_IN)
        dictionary.initialise(sample.x, torch.Generator().manual_seed(0))
    units = Units(kind, dictionary, sample)
    found = values(resolution_scores(units, mixtures))
    resolved, explained = naive(units, mixtures)
    assert found["resolution_rate"].tolist() == resolved
    assert 0 < sum(resolved) < len(resolved)
    torch.testing.assert_close(
        found["concept_variance_explained"], torch.tensor(explained, dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_a_unit_that_carries_nothing_into_the_neuron_does_not_resolve_it(sample: Sample, mixtures: Mixtures) -> None:
    dictionary = true_dictionary(TOY)
    dictionary.W_dec.data.mul_(0.01)
    carriers = Carriers.of(Units("weak", dictionary, sample), mixtures)
    assert (carriers.auc > 0.9).all()
    assert not carriers.resolved.any()


def test_no_polysemantic_neuron_leaves_nothing_to_resolve(sample: Sample) -> None:
    true = Units("true", true_dictionary(TOY), sample)
    found = resolution_scores(true, Mixtures.of(true, related_labels(sample.table)))
    assert [measured.definition.name for measured in found] == ["polysemantic_share"]
    assert resolution_details(true, Mixtures.of(true, related_labels(sample.table))) == []


def test_pooled_items_are_added_up_over_their_rows(sample: Sample, mixtures: Mixtures) -> None:
    """Four rows per item, of which one answers: shares stay those of the row."""
    rows = torch.zeros(4 * len(sample.x), D_IN)
    rows[::4] = sample.x
    provenance = dataclasses.replace(
        sample.rows,
        example=sample.rows.example.repeat_interleave(4),
        position=torch.arange(4).repeat(len(sample.x)),
        kind=sample.rows.kind.repeat_interleave(4),
    )
    pooled = dataclasses.replace(sample, x=rows, rows=provenance, pooled=True)
    single = Carriers.of(Units("true", true_dictionary(TOY), sample), mixtures)
    found = Carriers.of(Units("true", true_dictionary(TOY), pooled), mixtures)
    torch.testing.assert_close(found.share, single.share, atol=1e-6, rtol=0)


def test_details_say_why_and_draw(sample: Sample, mixtures: Mixtures, tmp_path: Path) -> None:
    dictionary = true_dictionary(TOY)
    dictionary.W_dec.data[7] *= 0.01
    rows = resolution_details(Units("true", dictionary, sample), mixtures, neurons=[8])
    assert [row["concept"] for row in rows] == ["feature_1=on", "feature_7=on", "feature_11=on"]
    assert [row["outcome"] for row in rows] == ["resolved", "the latent carries little of it", "resolved"]
    assert rows[0]["aucs"].keys() == {row["concept"] for row in rows}
    png = resolution_picture(rows, tmp_path / "neuron", "toy")
    assert png.exists() and png.with_suffix(".pdf").exists()
    assert len(png.with_suffix(".csv").read_text().splitlines()) == 1 + 4 * 3

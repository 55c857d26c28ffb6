import dataclasses

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.evaluation.facets import FACET_METRICS, FACETS, facet_scores
from sae.evaluation.labels import label_scores
from sae.evaluation.sample import Sample, Units, halves
from sae.inputs.concepts import FACETS as SHOWN_FACETS

N, N_CONCEPTS = 1200, 6


def sample_of(activations: torch.Tensor, seed: int = 0, pooled: bool = True) -> Sample:
    """Concepts in facets; concept c was never shown in facet c (for c < 4), concept 5 hardly occurs."""
    random = np.random.default_rng(seed)
    concept = random.integers(N_CONCEPTS - 1, size=N)
    concept[:14] = N_CONCEPTS - 1
    facet = random.integers(4, size=N)
    factors = {"concept": concept, "facet": facet, "held_out_facet": (concept == facet).astype(np.int64)}
    rows = torch.arange(N)
    return Sample(
        x=activations,
        rows=Provenance(rows, rows, torch.zeros(N, dtype=torch.uint8)),
        pooled=pooled,
        labels={"concept": concept},
        factors=factors,
        label_names={"concept": tuple("abcdef"), "facet": FACETS, "held_out_facet": ("no", "yes")},
        match=halves(rows, seed=0),
    )


def neurons(sample: Sample) -> Units:
    width = sample.x.shape[1]
    return Units("neurons", Identity(IdentityConfig(d_sae=width), width), sample)


def values(units: Units) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in facet_scores(units)}


def noisy() -> torch.Tensor:
    """Units that lean towards a concept, less so in facets that were never shown; the last one is dead."""
    factors = sample_of(torch.zeros(N, 1)).factors
    generator = torch.Generator().manual_seed(1)
    shown = torch.from_numpy(factors["concept"])[:, None] == torch.arange(9) % N_CONCEPTS
    strength = torch.where(torch.from_numpy(factors["held_out_facet"] == 1), 0.1, 0.5)[:, None]
    activations = ((torch.rand(N, 9, generator=generator) + shown * strength) * 8).round() / 8
    activations[:, -1] = 0
    return activations


def naive_auc(scores: np.ndarray, label: np.ndarray) -> float:
    with_label, without = scores[label][:, None], scores[~label][None, :]
    return float(((with_label > without) + 0.5 * (with_label == without)).mean())


def test_facets_are_those_of_the_concept_world() -> None:
    assert FACETS == SHOWN_FACETS
    assert len({metric.__doc__ for metric in FACET_METRICS}) == 8


def test_areas_per_facet_equal_loops_over_concepts() -> None:
    units = neurons(sample_of(noisy()))
    sample, codes = units.sample, units.sample.x.numpy()
    concept, facet, held_out = (sample.factors[f] for f in ("concept", "facet", "held_out_facet"))
    match = sample.match.numpy()
    found = values(units)
    assert set(found) == {f"concept_auc_{name}{kind}" for name in FACETS for kind in ("", "_unseen")}
    for number, name in enumerate(FACETS):
        for c in range(N_CONCEPTS):
            learnt, here = match & (held_out == 0), ~match & (facet == number)
            enough = (concept[learnt] == c).sum() >= 10 and (concept[here] == c).sum() >= 3
            on_match = [naive_auc(codes[learnt, u], concept[learnt] == c) for u in range(9)]
            best = on_match.index(max(on_match))
            expected = naive_auc(codes[here, best], concept[here] == c) if enough else np.nan
            seen, unseen = float(found[f"concept_auc_{name}"][c]), float(found[f"concept_auc_{name}_unseen"][c])
            wanted = (np.nan, expected) if c == number else (expected, np.nan)
            assert (seen, unseen) == pytest.approx(wanted, abs=1e-6, nan_ok=True), (name, c)
    assert all(measured[5].isnan() for measured in found.values())


def test_one_unit_per_concept_scores_one_in_every_facet() -> None:
    concept = torch.from_numpy(sample_of(torch.zeros(N, 1)).factors["concept"])
    units = neurons(sample_of((concept[:, None] == torch.arange(N_CONCEPTS)).float()))
    assert all((measured[~measured.isnan()] == 1).all() for measured in values(units).values())


def test_a_unit_of_seen_pairs_only_is_at_chance_on_unseen_ones() -> None:
    factors = sample_of(torch.zeros(N, 1)).factors
    shown = torch.from_numpy(factors["concept"])[:, None] == torch.arange(N_CONCEPTS)
    units = neurons(sample_of((shown & torch.from_numpy(factors["held_out_facet"] == 0)[:, None]).float()))
    for name, measured in values(units).items():
        expected = 0.5 if name.endswith("_unseen") else 1
        assert measured[~measured.isnan()].tolist() == pytest.approx([expected] * int((~measured.isnan()).sum())), name


def test_constant_and_shuffled_units_are_at_chance() -> None:
    for measured in values(neurons(sample_of(torch.ones(N, 4)))).values():
        assert (measured[~measured.isnan()] == 0.5).all()
    shuffled = neurons(sample_of(noisy()).shuffled(0))
    means = [measured.nanmean() for measured in values(shuffled).values()]
    assert float(torch.stack(means).mean()) == pytest.approx(0.5, abs=0.06)


def test_facets_are_scored_only_where_the_sample_has_them() -> None:
    sample = sample_of(noisy())
    names = {measured.definition.name for measured in label_scores(neurons(sample))}
    assert "concept_auc_word_unseen" in names
    assert facet_scores(neurons(sample_of(noisy(), pooled=False))) == []
    without = dataclasses.replace(sample, factors={"concept": sample.factors["concept"]})
    assert facet_scores(neurons(without)) == []
    all_seen = dataclasses.replace(sample, factors={**sample.factors, "held_out_facet": np.zeros(N, dtype=np.int64)})
    assert set(values(neurons(all_seen))) == {f"concept_auc_{name}" for name in FACETS}

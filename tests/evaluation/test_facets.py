import math

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.detection import win_probabilities
from sae.evaluation.facets import FACET_METRICS, FACETS, facet_details, facet_scores
from sae.evaluation.sample import Sample, Units, halves
from sae.evaluation.toys import toy_sample, true_dictionary, two_modality
from sae.inputs.concepts import FACETS as SHOWN_FACETS
from sae.tensors import Kind

N, N_CONCEPTS, WIDTH = 2400, 6, 8
HELD_OUT = ((0, 2), (3, 2), (4, 0), (4, 1), (2, 3))
"""Pairs of concept and facet that the subject never saw."""


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Concepts 0 to 4 in facets of unequal frequency; concept 5 hardly occurs."""
    generator = np.random.default_rng(seed)
    concept, facet = generator.integers(N_CONCEPTS - 1, size=N), generator.choice(4, size=N, p=(0.4, 0.3, 0.2, 0.1))
    concept[:14] = N_CONCEPTS - 1
    return concept, facet


def held_out() -> np.ndarray:
    concept, facet = drawn()
    return np.array([pair in HELD_OUT for pair in zip(concept.tolist(), facet.tolist(), strict=True)])


def activations() -> torch.Tensor:
    """Unit 0: concept 0 anyhow; 1: photos, sketches of 1; 2: word of 2; 3: 3 where seen; 4: nothing; 5: every word."""
    concept, facet = drawn()
    x = np.random.default_rng(1).random((N, WIDTH)) * 0.2
    x[:, 0] += concept == 0
    x[:, 1] += (concept == 1) & (facet < 2)
    x[:, 2] += (concept == 2) & (facet == 2)
    x[:, 3] += (concept == 3) & (facet != 2)
    x[:, 4] = 0.0
    x[:, 5] += facet == 2
    return (torch.from_numpy(x).float() * 16).round() / 16


def sample(x: torch.Tensor, seen: bool = False) -> Sample:
    concept, facet = drawn()
    numbers = torch.arange(N)
    held = held_out() & ~np.full(N, seen)
    return Sample(
        x=x,
        rows=Provenance(numbers, torch.zeros_like(numbers), torch.full((N,), int(Kind.POOLED), dtype=torch.uint8)),
        pooled=True,
        labels={"concept": concept},
        factors={"concept": concept, "facet": facet, "held_out_facet": held.astype(np.int64)},
        label_names={"concept": tuple("abcdef"), "facet": FACETS},
        match=halves(numbers, 0),
    )


def identity(width: int = WIDTH) -> Dictionary:
    return Identity(IdentityConfig(d_sae=width), width)


def neurons(sample: Sample) -> Units:
    return Units("neurons", identity(sample.x.shape[1]), sample)


def values(units: Units, n_candidates: int | None = None) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in facet_scores(units, n_candidates)}


@pytest.fixture(scope="module")
def units() -> Units:
    return neurons(sample(activations()))


def naive_auc(inside: np.ndarray, outside: np.ndarray) -> float:
    return float((np.sign(inside[:, None] - outside[None]) / 2 + 0.5).mean()) if inside.size else math.nan


def naive_match(units: Units) -> np.ndarray:
    """Areas on seen pictures of the half to match on, [units concepts]."""
    x, (concept, _) = units.sample.x.double().numpy(), drawn()
    matching = units.sample.match.numpy() & ~held_out()
    return np.array(
        [
            [naive_auc(x[matching & (concept == c), u], x[matching & (concept != c), u]) for c in range(N_CONCEPTS)]
            for u in range(WIDTH)
        ]
    )


def test_facets_are_those_of_the_concept_world() -> None:
    assert FACETS == SHOWN_FACETS
    assert len({metric.__doc__ for metric in FACET_METRICS.values()}) == 8


def test_areas_equal_loops_over_concepts_and_units(units: Units) -> None:
    found, on_match = values(units, 3), naive_match(units)
    x, (concept, facet), match = units.sample.x.double().numpy(), drawn(), units.sample.match.numpy()
    left = ~(match & ~held_out())
    summary: dict[tuple[bool, int], list[tuple[float, float]]] = {}
    for number, name in enumerate(FACETS):
        here = left & (facet == number)
        for c in range(N_CONCEPTS):
            enough = (concept[match & ~held_out()] == c).sum() >= 10 and (concept[here] == c).sum() >= 3
            areas = [naive_auc(x[here & (concept == c), u], x[here & (concept != c), u]) for u in range(WIDTH)]
            ranked = sorted(range(WIDTH), key=lambda u: (-on_match[u, c], u))
            equal = sum(float(p) * areas[u] for p, u in zip(win_probabilities(WIDTH, 3), ranked, strict=True))
            wanted = {
                True: math.nan,
                False: math.nan,
                (c, number) in HELD_OUT: areas[ranked[0]] if enough else math.nan,
            }
            for unseen, suffix in ((False, ""), (True, "_unseen")):
                area = float(found[f"concept_auc_{name}{suffix}"][c])
                assert area == pytest.approx(wanted[unseen], abs=1e-6, nan_ok=True), (name, c)
            if enough:
                summary.setdefault(((c, number) in HELD_OUT, c), []).append((areas[ranked[0]], equal))
    for unseen, name in ((False, "concept_auc_seen"), (True, "concept_auc_unseen")):
        for c in range(N_CONCEPTS):
            plain, equal = np.mean(summary.get((unseen, c), [(math.nan, math.nan)]), axis=0)
            assert float(found[name][c]) == pytest.approx(plain, abs=1e-6, nan_ok=True)
            assert float(found[f"{name}_equal"][c]) == pytest.approx(equal, abs=1e-6, nan_ok=True)
    assert found["concept_auc_seen"][5].isnan() and not found["concept_auc_unseen"][[0, 2, 3, 4]].isnan().any()


def test_breadth_and_reach_equal_loops_over_units(units: Units) -> None:
    found, on_match = values(units), naive_match(units)
    x, (concept, facet), match = units.sample.x.double().numpy(), drawn(), units.sample.match.numpy()
    on_match[:, 5] = 0  # too few pictures to be anybody's concept
    for unit in range(WIDTH):
        own = int(on_match[unit].argmax())
        if on_match[unit, own] <= 0.8:
            assert found["facet_breadth"][unit].isnan() and found["facets_reached"][unit].isnan()
            assert found["multimodal_share"][unit] == 0
            continue
        rises = []
        for f in range(4):
            here = ~match & (facet == f)
            rises.append(max(0.0, x[here & (concept == own), unit].mean() - x[here & (concept != own), unit].mean()))
        shares = np.array(rises) / sum(rises)
        breadth = math.exp(-sum(share * math.log(share) for share in shares if share > 0))
        reached = sum(rise >= max(rises) / 2 for rise in rises)
        assert found["facet_breadth"][unit].item() == pytest.approx(breadth, abs=1e-6)
        assert found["facets_reached"][unit] == reached
        assert found["multimodal_share"][unit] == (reached >= 3)


def test_planted_units_have_their_facets(units: Units) -> None:
    found = values(units)
    assert found["facets_reached"][[0, 1, 3]].tolist() == [4, 2, 3]
    assert found["facets_reached"][[4, 5, 6, 7]].isnan().all()
    assert found["facet_breadth"][0] > 3.9
    assert 1.9 < found["facet_breadth"][1] < 2.3
    assert 2.9 < found["facet_breadth"][3] < 3.3
    assert found["multimodal_share"].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


def test_a_unit_of_seen_pairs_only_is_at_chance_on_unseen_ones(units: Units) -> None:
    found = values(units)
    assert found["concept_auc_seen"][[0, 3]].tolist() == [1, 1]
    assert found["concept_auc_unseen"][0] == 1
    assert found["concept_auc_unseen"][3] == pytest.approx(0.5, abs=0.1)
    concept = torch.from_numpy(drawn()[0])[:, None] == torch.arange(N_CONCEPTS)
    exactly = neurons(sample((concept & ~torch.from_numpy(held_out())[:, None]).float()))
    for name, measured in values(exactly).items():
        if name.startswith("concept_auc"):
            expected = 0.5 if "unseen" in name else 1
            assert (measured[~measured.isnan()] - expected).abs().max() < 1e-9, name


def test_pictures_that_were_matched_on_are_not_scored(units: Units) -> None:
    whole, matched = units.sample, units.sample.match & ~torch.from_numpy(held_out())
    x = whole.x.clone()
    x[matched, 6] = 9.0 * (torch.from_numpy(drawn()[0]) == 1)[matched]  # only there unit 6 detects concept 1
    found = values(neurons(whole.with_vectors(x)))
    assert found["concept_auc_seen"][1] == pytest.approx(0.5, abs=0.15)


def test_constant_and_shuffled_units_are_at_chance(units: Units) -> None:
    constant = values(neurons(sample(torch.ones(N, 4))), 2)
    for name, measured in constant.items():
        if name.startswith("concept_auc"):
            assert (measured[~measured.isnan()] - 0.5).abs().max() < 1e-12
    shuffled = values(Units("shuffled", identity(), units.sample.shuffled(0)), 3)
    assert "facet_breadth" not in shuffled and (shuffled["multimodal_share"] == 0).all()
    assert float(shuffled["concept_auc_seen"].nanmean()) == pytest.approx(0.5, abs=0.06)


def test_the_table_of_readings(units: Units) -> None:
    details = facet_details(units)
    assert details["readings"]["literal"] == 1
    assert details["readings"]["literal + symbolic"] == 1
    assert details["readings"]["literal + symbolic + conceptual"] == 1
    assert details["unseen"]["word"] == {"units": 2, "reached": 1}
    assert details["with_concept"] == sum(details["readings"].values())


def test_without_unseen_facets_only_the_others_are_scored() -> None:
    found = values(neurons(sample(activations(), seen=True)), 3)
    areas = {name for name in found if name.startswith("concept_auc")}
    assert areas == {f"concept_auc_{name}" for name in (*FACETS, "seen", "seen_equal")}


def test_a_sample_without_facets_is_refused() -> None:
    toy = two_modality(3, 2, 16)
    with pytest.raises(EvaluationError, match="needs pictures with the factors concept, facet"):
        facet_scores(Units("true", true_dictionary(toy), toy_sample(toy, 100)))

import dataclasses
import math

import numpy as np
import pytest
import torch

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured
from sae.evaluation.multimodality import (
    facet_details,
    facet_scores,
    modality_scores,
    text_scores,
)
from sae.evaluation.sample import Sample, Units, halves
from sae.evaluation.toys import toy_sample, true_dictionary, two_modality
from sae.tensors import Kind

FACETS = ("photo", "sketch", "word", "symbol")
N, N_CONCEPTS = 2400, 5
WIDTH = 8


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(N_CONCEPTS, size=N), generator.choice(4, size=N, p=(0.4, 0.35, 0.15, 0.1))


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
    return torch.from_numpy(x).float()


def sample(x: torch.Tensor) -> Sample:
    """The word of concept 3, and that of concept 0, are held out."""
    concept, facet = drawn()
    held = ((concept == 3) | (concept == 0)) & (facet == 2)
    numbers = torch.arange(N)
    factors = {"concept": concept, "facet": facet, "held_out_facet": held.astype(np.int64)}
    return Sample(
        x=x,
        rows=Provenance(numbers, torch.zeros_like(numbers), torch.full((N,), int(Kind.POOLED), dtype=torch.uint8)),
        pooled=True,
        labels={"concept": concept},
        factors=factors,
        label_names={"concept": tuple("abcde"), "facet": FACETS},
        match=halves(numbers, 0),
    )


def identity() -> Dictionary:
    return Identity(IdentityConfig(d_sae=WIDTH), WIDTH)


@pytest.fixture(scope="module")
def units() -> Units:
    return Units("planted", identity(), sample(activations()))


def values(found: list[Measured]) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in found}


def test_planted_units_have_their_facets(units: Units) -> None:
    found = values(facet_scores(units))
    assert found["facets_reached"][[0, 1, 3]].tolist() == [4, 2, 3]
    assert found["facets_reached"][[4, 5, 6, 7]].isnan().all()
    assert found["facet_breadth"][0] > 3.9
    assert 1.9 < found["facet_breadth"][1] < 2.3
    assert 2.9 < found["facet_breadth"][3] < 3.3
    assert found["multimodal_share"].tolist() == [1, 0, 0, 1, 0, 0, 0, 0]


def test_seen_and_unseen_facets_are_told_apart(units: Units) -> None:
    found = values(facet_scores(units))
    assert found["facet_auc_seen"][0] == 1
    assert found["facet_auc_seen"][3] == 1
    assert found["facet_transfer"][0] == 1
    assert abs(found["facet_transfer"][3] - 0.5) < 0.1
    assert found["facet_transfer"][[1, 2, 4]].isnan().all()


def test_agreement_with_a_naive_computation(units: Units) -> None:
    found, shown = values(facet_scores(units)), units.sample
    x, concept, facet = shown.x.double().numpy(), *drawn()
    match, held = shown.match.numpy(), shown.factors["held_out_facet"] == 1

    def auc(inside: np.ndarray, outside: np.ndarray) -> float:
        return float((np.sign(inside[:, None] - outside[None]) / 2 + 0.5).mean())

    matching = match & ~held
    on_match = np.array(
        [
            [auc(x[matching & (concept == c), u], x[matching & (concept != c), u]) for c in range(5)]
            for u in range(WIDTH)
        ]
    )
    for unit in range(WIDTH):
        own = int(on_match[unit].argmax())
        if on_match[unit, own] <= 0.8:
            assert found["facet_breadth"][unit].isnan()
            continue
        rises = []
        for f in range(4):
            here = ~match & (facet == f)
            rises.append(max(0.0, x[here & (concept == own), unit].mean() - x[here & (concept != own), unit].mean()))
        shares = np.array(rises) / sum(rises)
        breadth = math.exp(-sum(share * math.log(share) for share in shares if share > 0))
        assert found["facet_breadth"][unit].item() == pytest.approx(breadth, abs=1e-6)
        assert found["facets_reached"][unit] == sum(rise >= max(rises) / 2 for rise in rises)
    for c in range(5):
        best = int(on_match[:, c].argmax())
        for name, usable, unseen in (("facet_auc_seen", ~match, False), ("facet_transfer", match | ~match, True)):
            each = [
                auc(x[here & (concept == c), best], x[here & (concept != c), best])
                for f in range(4)
                if (here := usable & (facet == f)).any() and (held[here & (concept == c)] == unseen).any()
            ]
            if each:
                assert found[name][c].item() == pytest.approx(float(np.mean(each)), abs=1e-6)
            else:
                assert found[name][c].isnan()


def test_shuffled_and_constant_units_are_at_chance(units: Units) -> None:
    found = values(facet_scores(Units("shuffled", identity(), units.sample.shuffled(0))))
    assert (found["multimodal_share"] == 0).all()
    assert found["facet_auc_seen"].mean() == pytest.approx(0.5, abs=0.05)
    assert "facet_breadth" not in found
    constant = values(facet_scores(Units("constant", identity(), sample(torch.ones(N, WIDTH)))))
    assert (constant["facet_auc_seen"] == 0.5).all()
    assert (constant["facet_transfer"][[0, 3]] == 0.5).all()


def test_the_table_of_readings(units: Units) -> None:
    details = facet_details(units)
    assert details["readings"]["literal"] == 1
    assert details["readings"]["literal + symbolic"] == 1
    assert details["readings"]["literal + symbolic + conceptual"] == 1
    assert details["unseen"]["word"] == {"units": 2, "reached": 1}
    assert details["with_concept"] == sum(details["readings"].values())


def test_a_sample_without_facets_is_refused() -> None:
    toy = two_modality(3, 2, 16)
    with pytest.raises(EvaluationError, match="needs pictures with the factors concept, facet"):
        facet_scores(Units("true", true_dictionary(toy), toy_sample(toy, 100)))


def test_texts_agree_with_units_of_their_concept(units: Units) -> None:
    generator = torch.Generator().manual_seed(0)
    meaning = torch.nn.functional.normalize(torch.randn(N_CONCEPTS, 16, generator=generator), dim=1)
    gap = torch.ones(16)
    images = meaning[torch.from_numpy(drawn()[0])] + 0.1 * torch.randn(N, 16, generator=generator) + gap
    agreement = text_scores(units, images, meaning - gap)[0].values
    assert (agreement[[0, 1, 3]] == 1).all()
    assert agreement[4:].isnan().all()
    # Naive: activation-weighted mean less the mean, and the rank of the unit's own text.
    scoring = ~units.sample.match
    x, embedded = units.sample.x[scoring, 1].double(), images[scoring].double()
    place = (x[:, None] * embedded).sum(0) / x.sum() - embedded.mean(0)
    texts = (meaning - gap).double() - (meaning - gap).double().mean(0)
    for moved in (1, 2, 3):
        turned = texts.roll(moved, 0)
        cosine = torch.cosine_similarity(place[None], turned, dim=1)
        found = text_scores(units, images, (meaning - gap).roll(moved, 0))[0].values[1]
        assert found.item() == pytest.approx(float((cosine < cosine[1]).sum()) / 4, abs=1e-6)


def test_modality_share_of_a_toy_with_two_modalities() -> None:
    toy = two_modality(3, 2, 16)
    whole = toy_sample(toy, 2000)
    modality = torch.from_numpy(whole.factors["modality"])

    def of(number: int) -> Units:
        kept = modality == number
        rows = Provenance(*(column[kept] for column in (whole.rows.example, whole.rows.position, whole.rows.kind)))
        return Units(
            "true",
            true_dictionary(toy),
            dataclasses.replace(whole, x=whole.x[kept], rows=rows, match=whole.match[kept]),
        )

    share = modality_scores(of(0), of(1))[0].values
    assert ((share[:3] > 0.4) & (share[:3] < 0.6)).all()
    assert (share[3:5] > 0.99).all()
    assert (share[5:] < 0.01).all()
    codes = [of(i).responses.columns(torch.arange(7)).double().mean(0) for i in (0, 1)]
    torch.testing.assert_close(share, codes[0] / (codes[0] + codes[1]), atol=1e-6, rtol=0)

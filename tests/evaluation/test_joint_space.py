import dataclasses

import pytest
import torch
from test_facets import N_CONCEPTS, N, drawn, neurons, sample
from test_facets import activations as planted

from sae.activations.store import Provenance
from sae.evaluation.joint_space import modality_scores, text_scores
from sae.evaluation.sample import Units
from sae.evaluation.toys import toy_sample, true_dictionary, two_modality


@pytest.fixture(scope="module")
def units() -> Units:
    return neurons(sample(planted()))


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
        assert found.item() == pytest.approx(float((cosine < cosine[1]).sum()) / (N_CONCEPTS - 1), abs=1e-6)


def test_texts_are_compared_beside_their_own_mean(units: Units) -> None:
    """The towers lie apart, and texts are of unequal length: without their mean taken off, others would be nearer."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(N, 6, generator=generator) + 0.3 * torch.randn(N_CONCEPTS, 6, generator=generator)[drawn()[0]]
    texts = torch.rand(N_CONCEPTS, 1, generator=generator) * 3 * torch.randn(N_CONCEPTS, 6, generator=generator) + 2.0
    found, scoring = text_scores(units, images, texts)[0].values, ~units.sample.match
    x, embedded = units.sample.x[scoring].double(), images[scoring].double()

    def below(unit: int, texts: torch.Tensor) -> float:
        """Share of other texts that are further from a unit, whose concept has its number."""
        place = (x[:, unit, None] * (embedded - embedded.mean(0))).sum(0)
        cosine = torch.cosine_similarity(place[None], texts.double(), dim=1).tolist()
        return sum(other < cosine[unit] for other in cosine) / (N_CONCEPTS - 1)

    wanted = [below(unit, texts - texts.mean(0)) for unit in (0, 1, 3)]
    assert found[[0, 1, 3]].tolist() == pytest.approx(wanted, abs=1e-6)
    assert wanted != [below(unit, texts) for unit in (0, 1, 3)]


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

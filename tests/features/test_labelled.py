import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from sae.dictionaries.linear import Identity, IdentityConfig
from sae.evaluation.facets import Facets
from sae.evaluation.meanings import related_labels
from sae.evaluation.resolution import Carriers, Mixtures, concept_variance_explained
from sae.evaluation.sample import Units
from sae.evaluation.toy_inputs import toy_images
from sae.evaluation.toys import orthogonal, superposition, toy_sample, true_dictionary
from sae.features.sections.labelled import FacetResponses, Labelled, best_control_auc
from sae.features.sections.neurons import NeuronMixtures

TOY = superposition(16, 8, 1.5, seed=0)


@pytest.fixture(scope="module")
def sample():
    return toy_sample(TOY, 4000)


@pytest.fixture(scope="module")
def units(sample) -> Units:
    dictionary = true_dictionary(TOY)
    return Units("true", dictionary, sample)


@pytest.fixture(scope="module")
def neurons(sample) -> Units:
    return Units("neurons", Identity(IdentityConfig(d_sae=8), 8), sample)


@pytest.mark.parametrize("kind", ["units", "neurons"])
def test_labels_are_chosen_on_one_half_and_measured_on_the_other(kind: str, request, sample) -> None:
    these: Units = request.getfixturevalue(kind)
    dense = these.responses.columns(torch.arange(these.n_units)).double().numpy()
    match, columns, names = sample.match.numpy(), sample.table.columns.numpy(), sample.table.names
    sections = Labelled(these, n=2, n_levels=4).of(range(1, these.n_units))
    n_found = 0
    for unit, section in zip(range(1, these.n_units), sections, strict=True):
        matched = [roc_auc_score(columns[match, i], dense[match, unit]) for i in range(len(names))]
        order = [i for i in np.argsort(-np.array(matched))[:2] if matched[i] > 0.8]
        assert (section is None) == (not order)
        for i, entry in zip(order, section or [], strict=True):
            truth, values = columns[~match, i], dense[~match, unit]
            assert entry["label"] == names[i]
            assert entry["auc"] == pytest.approx(roc_auc_score(truth, values), rel=1e-3)
            assert entry["average_precision"] == pytest.approx(average_precision_score(truth, values), rel=1e-3)
            largest = dense[:, unit].max()
            for low, high, precision in entry["levels"]:
                step = round(high / largest * 4)
                inside = (values > largest * (step - 1) / 4) & (values <= largest * step / 4) & (values > 0)
                assert low == pytest.approx(largest * (step - 1) / 4, rel=1e-3)
                assert precision == pytest.approx(truth[inside].mean(), rel=1e-3)
            assert len(entry["levels"]) <= 4
            n_found += 1
    assert n_found >= 4


def test_blocks_change_nothing(units: Units, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Labelled(units).of(range(16))
    monkeypatch.setattr("sae.features.sections.labelled._UNITS_AT_ONCE", 3)
    assert Labelled(units).of(range(16)) == whole
    assert Labelled(units).of(range(5, 9)) == whole[5:9]


def test_the_best_of_all_controls_stands_beside(units: Units, neurons: Units, sample) -> None:
    shuffled = units.shuffled("shuffled", 0)
    best = best_control_auc([neurons, shuffled])
    assert set(best) == set(sample.table.names)
    for number, name in enumerate(sample.table.names):
        held = []
        for control in (neurons, shuffled):
            on_match, on_score = control.auc
            held.append(float(on_score[on_match[:, number].argmax(), number]))
        assert best[name] == pytest.approx(max(held))
    sections = Labelled(units, best).of(range(16))
    entries = [entry for section in sections if section for entry in section]
    assert entries
    assert all(entry["auc_control"] == pytest.approx(best[entry["label"]], rel=1e-3) for entry in entries)


def test_bands_end_at_the_maximum_that_is_given(units: Units) -> None:
    larger = units.responses.maximum * 2
    sections = Labelled(units, maximum=larger, n_levels=4).of(range(16))
    for unit, section in enumerate(sections):
        for entry in section or []:
            assert max(high for _, high, _ in entry["levels"]) <= float(larger[unit]) / 2 * 1.001


@pytest.fixture(scope="module")
def pictures() -> Units:
    toy = orthogonal(10, 16, 2.0, seed=0)
    return Units("true", true_dictionary(toy), toy_images(toy, 3000).sample)


def test_facets_of_a_concept_are_those_of_its_latent(pictures: Units) -> None:
    facets, sections = Facets(pictures), FacetResponses(pictures).of(range(pictures.n_units))
    assert sum(section is not None for section in sections) == int((facets.concept >= 0).sum()) == 6
    for unit, section in enumerate(sections):
        if section is None:
            continue
        concept = f"feature_{unit}"
        assert concept in facets.shown.concept_names
        for facet, values in section.items():
            place = facets.shown.facet_names.index(facet)
            own = int((facets.shown.scored == facets.concept[unit]).nonzero())
            assert values[concept] == pytest.approx(float(facets.facet_auc[place, unit, own]), rel=1e-3)
            assert values[concept] > 0.99
        assert set(section) == set(facets.shown.facet_names)


def test_mixtures_of_neurons_are_the_evaluations_own() -> None:
    toy = orthogonal(12, 12, 0.8, seed=1)
    sample = toy_sample(toy, 4000)
    neurons = Units("neurons", Identity(IdentityConfig(d_sae=12), 12), sample)
    units = Units("true", true_dictionary(toy), sample)
    related = related_labels(sample.table)
    found = NeuronMixtures(units, neurons, related)
    mixtures = Mixtures.of(neurons, related)
    explained = concept_variance_explained(Carriers.of(units, mixtures)).values
    sections = found.of(range(12))
    assert [number for number, section in enumerate(sections) if section] == mixtures.neuron.unique().tolist()
    for number, section in enumerate(sections):
        if section is None:
            continue
        own = mixtures.neuron == number
        assert len(section["parts"]) == int(own.sum())
        assert section["unresolved"] == pytest.approx(1 - float(explained[own].mean()), abs=1e-3)
        for part in section["parts"]:
            # The latent of a concept is the true feature of its number.
            feature = int(part["label"].removeprefix("feature_").removesuffix("=on"))
            latent, auc, share = part["latents"][0]
            assert latent == feature and auc > 0.99 and share > 0.85
            assert part["resolved"] is True
            assert part["variance_explained"] > 0.95
    silent = true_dictionary(toy)
    silent.b_enc.data.fill_(-100.0)
    nothing = NeuronMixtures(Units("silent", silent, sample), neurons, related).of(range(12))
    for section in filter(None, nothing):
        assert section["unresolved"] == 1.0
        assert not any(part["resolved"] for part in section["parts"])
        assert all(math.isfinite(part["latents"][0][1]) for part in section["parts"])


def test_neurons_that_mix_nothing_have_no_section() -> None:
    toy = orthogonal(8, 8, 0.8, seed=1)
    rotated = toy_sample(toy, 2000)
    # Rounded, for even traces of other features would be ranked.
    aligned = rotated.with_vectors((rotated.x @ torch.linalg.inv(toy.directions) * 1024).round() / 1024)
    neurons = Units("neurons", Identity(IdentityConfig(d_sae=8), 8), aligned)
    assert NeuronMixtures(neurons, neurons, related_labels(aligned.table)).of(range(8)) == [None] * 8

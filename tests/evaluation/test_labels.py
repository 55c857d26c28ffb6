from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.linear import Identity, IdentityConfig
from sae.dictionaries.topk import TopK, TopKConfig
from sae.evaluation import detection
from sae.evaluation.detection import Detection, average_precision, win_probabilities
from sae.evaluation.labels import best_labels, label_scores, label_table
from sae.evaluation.labels_equal import label_average_precision_equal
from sae.evaluation.responses import DenseResponses, SparseResponses
from sae.evaluation.sample import Sample, Units, halves
from sae.evaluation.weights import Weights

N = 400
CLASSES = ("red", "green", "blue")


def plain(n_units: int, sparse: bool) -> Dictionary:
    """Codes equal to non-negative vectors, as sparse latents or as dense units."""
    if not sparse:
        return Identity(IdentityConfig(d_sae=n_units), n_units)
    dictionary = TopK(TopKConfig(d_sae=n_units, k=n_units), n_units).requires_grad_(False)
    dictionary.W_enc_rows.copy_(torch.eye(n_units))
    dictionary.W_dec.copy_(torch.eye(n_units))
    return dictionary


def sparse_responses(activations: torch.Tensor) -> SparseResponses:
    items, units = activations.nonzero(as_tuple=True)
    return SparseResponses.of_entries(items, units, activations[items, units], *activations.shape)


def dense_responses(activations: torch.Tensor) -> DenseResponses:
    return DenseResponses(lambda units: activations[:, units], *activations.shape)


def units_of(activations: torch.Tensor, classes: np.ndarray, sparse: bool = True) -> Units:
    """Units with given activations on items of given classes."""
    n_items, n_units = activations.shape
    rows = torch.arange(n_items)
    labels = {"colour": classes}
    sample = Sample(
        x=activations,
        rows=Provenance(rows, rows, torch.zeros(n_items, dtype=torch.uint8)),
        pooled=False,
        labels=labels,
        factors=labels,
        label_names={"colour": CLASSES},
        match=halves(rows, seed=0),
    )
    return Units("toy", plain(n_units, sparse), sample)


def classes(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, size=N)


def noisy(n_units: int, seed: int = 1) -> torch.Tensor:
    """Coarse sparse activations that lean towards the class of the same number, modulo 3; the last unit is dead."""
    generator = torch.Generator().manual_seed(seed)
    shown = torch.from_numpy(classes())[:, None] == torch.arange(n_units) % 3
    strength = (torch.rand(N, n_units, generator=generator) * 5).round() / 5 + shown * torch.linspace(0, 0.6, n_units)
    strength[:, -1] = 0
    return strength * (torch.rand(N, n_units, generator=generator) < 0.4)


def values(units: Units, n_candidates: int | None = None) -> dict[str, torch.Tensor]:
    return {measured.definition.name: measured.values for measured in label_scores(units, n_candidates)}


def naive_auc(scores: np.ndarray, label: np.ndarray) -> float:
    with_label, without = scores[label][:, None], scores[~label][None, :]
    return float(((with_label > without) + 0.5 * (with_label == without)).mean())


def naive_phi(fired: np.ndarray, label: np.ndarray) -> float:
    if fired.all() or not fired.any():
        return 0.0
    return float(np.corrcoef(fired, label)[0, 1])


def first_largest(found: Sequence[float]) -> int:
    return max(range(len(found)), key=lambda i: (found[i], -i))


@pytest.mark.parametrize("sparse", [True, False])
def test_every_metric_equals_its_naive_twin(sparse: bool) -> None:
    activations = noisy(7)
    units = units_of(activations, classes(), sparse)
    found = values(units, 3)
    match, codes = units.sample.match.numpy(), activations.numpy()
    labels = [classes() == c for c in range(3)]
    on_match = [[naive_auc(codes[match, u], label[match]) for label in labels] for u in range(7)]
    held_out = [[naive_auc(codes[~match, u], label[~match]) for label in labels] for u in range(7)]
    phi_match = [[naive_phi(codes[match, u] > 0, label[match]) for label in labels] for u in range(7)]
    phi = [[naive_phi(codes[~match, u] > 0, label[~match]) for label in labels] for u in range(7)]

    def coverage(u: int, c: int) -> float:
        return float((codes[~match, u][labels[c][~match]] > 0).mean())

    def purity(u: int, c: int, chance: float) -> float:
        fired = codes[~match, u] > 0
        return float(labels[c][~match][fired].mean()) if fired.any() else chance

    def precision(u: int, c: int, half: np.ndarray) -> float:
        return float(average_precision_score(labels[c][half], codes[half, u]))

    def most_precise(c: int) -> int:
        by_auc = sorted(range(7), key=lambda u: (-on_match[u][c], u))[:4]
        by_phi = sorted(range(7), key=lambda u: (-phi_match[u][c], u))[:4]
        return max(by_auc + by_phi, key=lambda u: precision(u, c, match))

    base = [float(label[~match].mean()) for label in labels]
    unit = [first_largest([on_match[u][c] for u in range(7)]) for c in range(3)]
    by_phi = [first_largest([phi_match[u][c] for u in range(7)]) for c in range(3)]
    label = [first_largest(on_match[u]) for u in range(7)]

    def of_draws(matched: list[list[float]], scored: list[list[float]]) -> list[float]:
        def best(drawn: tuple[int, ...], c: int) -> int:
            return max(drawn, key=lambda u: (matched[u][c], -u))

        draws = list(combinations(range(7), 3))
        return [float(np.mean([scored[best(drawn, c)][c] for drawn in draws])) for c in range(3)]

    expected = {
        "label_auc": [held_out[unit[c]][c] for c in range(3)],
        "label_auc_equal": of_draws(on_match, held_out),
        "label_phi_equal": of_draws(phi_match, phi),
        "label_average_precision_equal": of_draws(
            *([[precision(u, c, half) for c in range(3)] for u in range(7)] for half in (match, ~match))
        ),
        "labels_found_share": [float(held_out[unit[c]][c] > 0.9) for c in range(3)],
        "label_coverage": [coverage(unit[c], c) for c in range(3)],
        "label_purity": [purity(unit[c], c, base[c]) for c in range(3)],
        "label_phi": [phi[by_phi[c]][c] for c in range(3)],
        "label_average_precision": [precision(most_precise(c), c, ~match) for c in range(3)],
        "unit_auc": [held_out[u][label[u]] for u in range(7)],
        "monosemantic_share": [float(held_out[u][label[u]] > 0.9) for u in range(7)],
        "unit_coverage": [coverage(u, label[u]) for u in range(7)],
        "unit_purity": [purity(u, label[u], float(np.mean(base))) for u in range(7)],
        "unit_phi": [phi[u][first_largest(phi_match[u])] for u in range(7)],
    }
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert found[name].tolist() == pytest.approx(wanted, abs=1e-6), name
    assert best_labels(units).tolist() == [*label[:6], -1]


def test_one_unit_per_label_scores_one_on_everything() -> None:
    shown = torch.from_numpy(classes())[:, None] == torch.arange(3)
    units = units_of(shown * (0.5 + torch.rand(N, 3, generator=torch.Generator().manual_seed(2))), classes())
    for name, measured in values(units, 3).items():
        assert measured.tolist() == pytest.approx([1, 1, 1]), name
    assert best_labels(units).tolist() == [0, 1, 2]
    assert [(row["label"], row["unit"], row["auc"]) for row in label_table(units)] == [
        ("colour=red", 0, 1),
        ("colour=green", 1, 1),
        ("colour=blue", 2, 1),
    ]
    assert [row["positives"] for row in label_table(units)] == np.bincount(classes()).tolist()


def test_shuffled_labels_sit_at_chance() -> None:
    units = units_of(noisy(7), classes())
    found = values(Units("shuffled", units.dictionary, units.sample.shuffled(0)), 3)
    base = float(Detection(units).base_rate.mean())
    for name in ("label_auc", "label_auc_equal", "unit_auc"):
        assert found[name].mean() == pytest.approx(0.5, abs=0.05), name
    for name in ("label_phi", "unit_phi"):
        assert found[name].mean() == pytest.approx(0, abs=0.08), name
    for name in ("label_purity", "unit_purity"):
        assert found[name].mean() == pytest.approx(base, abs=0.08), name
    assert found["labels_found_share"].sum() == found["monosemantic_share"].sum() == 0


@pytest.mark.parametrize("always", [1.0, 0.0])
@pytest.mark.parametrize("sparse", [True, False])
def test_units_that_never_change_are_exactly_chance(always: float, sparse: bool) -> None:
    units = units_of(torch.full((N, 4), always), classes(), sparse)
    found, base = values(units, 2), Detection(units).base_rate
    for name in ("label_auc", "label_auc_equal", "unit_auc"):
        assert (found[name] - 0.5).abs().max() < 1e-12, name
    for name in ("labels_found_share", "monosemantic_share", "label_phi", "unit_phi"):
        assert found[name].abs().max() < 1e-12, name
    torch.testing.assert_close(found["label_purity"], base)
    torch.testing.assert_close(found["label_average_precision"], base)
    assert found["label_coverage"].tolist() == [always] * 3
    assert found["unit_coverage"].tolist() == [always] * 4
    torch.testing.assert_close(found["unit_purity"], (base[0] if always else base.mean()).expand(4))
    assert best_labels(units).tolist() == [-1] * 4


def test_copies_and_dead_units_do_not_change_what_is_found() -> None:
    few = values(units_of(noisy(7), classes()))
    copied = torch.cat([noisy(7), noisy(7), torch.zeros(N, 5)], 1)
    many = values(units_of(copied, classes()), n_candidates=100)
    for name in ("label_auc", "label_coverage", "label_purity", "label_phi"):
        torch.testing.assert_close(few[name], many[name])
    torch.testing.assert_close(many["label_auc_equal"], few["label_auc"])
    assert many["unit_auc"][-6:].tolist() == [0.5] * 6


@pytest.mark.parametrize(("n_units", "n_candidates"), [(6, 1), (6, 4), (6, 6), (6, 9), (1, 1), (40, 11)])
def test_win_probabilities_equal_the_share_of_draws(n_units: int, n_candidates: int) -> None:
    found = win_probabilities(n_units, n_candidates)
    assert found.sum() == pytest.approx(1)
    if n_units < 10:
        draws = list(combinations(range(n_units), min(n_candidates, n_units)))
        assert found.tolist() == pytest.approx([sum(min(d) == r for d in draws) / len(draws) for r in range(n_units)])
    generator = np.random.default_rng(3)
    best = [generator.choice(n_units, min(n_candidates, n_units), replace=False).min() for _ in range(4000)]
    sampled = np.bincount(best, minlength=n_units) / len(best)
    assert np.abs(found.numpy() - sampled).max() < 0.03


def test_win_probabilities_stay_exact_with_many_units() -> None:
    found = win_probabilities(65536, 512)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    assert found[0] == pytest.approx(512 / 65536)
    assert (found >= 0).all()
    assert (found.diff() <= 0).all()


@pytest.mark.parametrize("n_candidates", [3, 5])
def test_draws_that_miss_the_shortlist_count_as_chance(n_candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "SHORTLIST", 1)
    units = units_of(noisy(7), classes())
    found = Detection(units)
    match, codes, listed = units.sample.match.numpy(), noisy(7).numpy(), -(-7 // n_candidates)
    for c in range(3):
        label = classes() == c
        on_match = {
            u: average_precision_score(label[match], codes[match, u])
            for scores in (found.match_auc, found.match_phi)
            for u in scores[:, c].topk(listed).indices.tolist()
        }
        scores = []
        for drawn in combinations(range(7), n_candidates):
            shortlisted = [u for u in drawn if u in on_match]
            best = max(shortlisted, key=lambda u: (on_match[u], -u), default=None)
            scores.append(
                label[~match].mean() if best is None else average_precision_score(label[~match], codes[~match, best])
            )
        equal = label_average_precision_equal(found, n_candidates).values
        assert float(equal[c]) == pytest.approx(float(np.mean(scores)), abs=1e-6)


@pytest.mark.parametrize("make", [sparse_responses, dense_responses])
def test_average_precision_equals_that_of_scikit_learn_with_ties_and_silent_items(make) -> None:
    generator = torch.Generator().manual_seed(3)
    activations = (torch.randn(N, 5, generator=generator) * 3).round() * (torch.rand(N, 5, generator=generator) < 0.4)
    labels = torch.rand(N, 5, generator=generator) < 0.2
    unit, label = torch.arange(5).repeat(4), torch.tensor([3, 1, 4, 0, 2]).repeat_interleave(4)
    expected = [
        average_precision_score(labels[:, c].numpy(), activations[:, u].numpy())
        for u, c in zip(unit.tolist(), label.tolist(), strict=True)
    ]
    found = average_precision(make(activations), Weights.of(labels), unit, label)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_winning_chances_do_not_depend_on_how_many_items_are_ranked_at_a_time() -> None:
    matched = torch.rand(9, 2 * detection.ITEMS_AT_ONCE + 3, generator=torch.Generator().manual_seed(4))
    columns = [detection.winning_chances(column[:, None], 4) for column in matched.T]
    assert torch.equal(detection.winning_chances(matched, 4), torch.cat(columns, 1))

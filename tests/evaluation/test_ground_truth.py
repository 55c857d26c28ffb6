"""Every metric on every ground-truth toy: a perfect dictionary at its best, whatever lacks information at chance.

`TABLE` states for each metric what it has to be for the true dictionary, for constant units, and for the true
dictionary with its rows dealt out. Where that is no plain number, `attainable.py` works it out from the toy alone.
Random directions have to score what the random directions score that an evaluation sets beside them as a control.

Exact values hold to 1e-6. Values of chance hold within four standard errors of the mean: from the spread of the items,
widened by Student's t for as few as there are, or from the known variance of one item where items are too skewed to
show theirs. Seeds are fixed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import attainable as at
import pytest
import torch
from attainable import Attained, Between, Luck, of_concepts
from ground_truth import TOYS, VIEWS, values, view
from scipy import stats
from torch import Tensor

from sae.evaluation.definitions import FAMILIES, import_families
from sae.evaluation.facets import FACETS
from sae.evaluation.joint_space import text_scores
from sae.evaluation.metric import METRICS, find_metric

import_families()


@dataclass(frozen=True)
class Absent:
    """The metric leaves every item out, or is not given at all."""

    why: str


@dataclass(frozen=True)
class NoBar:
    """Nothing is asked for."""

    why: str


@dataclass(frozen=True)
class Except:
    """A number, but on some toys another value."""

    value: float
    on: dict[str, Attained]
    why: str


@dataclass(frozen=True)
class Expected:
    """What a metric has to be; numbers hold for every item."""

    view: str
    perfect: "float | Attained | Except"
    constant: "float | Attained | Absent | NoBar"
    shuffled: "float | Attained | Absent | NoBar"


def gap(value: float, attained: Attained) -> Except:
    """Two modalities lie apart by offsets that are no features, so that the true features do not rebuild them."""
    return Except(value, {"two_modality": attained}, "offsets of the modalities are no features")


def spliced(
    by_hand: Callable[[str, str], Attained],
    name: str,
    perfect: "float | Attained | None" = None,
    constant: float | None = None,
) -> Expected:
    """What is no number is what the score of that name becomes when rows are replaced by hand."""
    features, mean = by_hand(name, "features"), by_hand(name, "mean")
    best = gap(perfect, features) if isinstance(perfect, int | float) else perfect or features
    return Expected("subjects", best, mean if constant is None else constant, NOT_DEALT)


UNMOVED = NoBar("rows dealt out are rebuilt like the same rows in order; a test of its own says so")
NOT_DEALT = NoBar("a subject is run, no rows are dealt out")
DIRECTIONS = NoBar("directions alone are compared, no rows are dealt out")
NO_CONCEPT = Absent("no unit detects a concept, so none has one")
DENSE = Absent("splitting is defined for units that rest")
RARE = NoBar("latents that fire on few rows are near some parent by chance; the bar of an edge is what chance reaches")
MATCHED = NoBar("which unit is matched where all cosines are 0 is arbitrary")
BY_FACET = {f"concept_auc_{facet}{kind}": (facet, bool(kind)) for facet in FACETS for kind in ("", "_unseen")}
SUMMARIES = ("seen", "seen_equal", "unseen", "unseen_equal")
MIN_COMPARED = 8
"""Items of either side below which their spread says little."""

TABLE: dict[str, Expected] = {
    # Reconstruction and firing. Constant units rebuild the mean.
    "fvu": Expected("vectors", gap(0, at.fvu(at.features_alone)), 1, UNMOVED),
    "explained_variance": Expected("vectors", gap(1, at.explained_variance(at.features_alone)), 0, UNMOVED),
    "cosine": Expected("vectors", at.cosine(at.features_alone), at.cosine(at.mean_alone), UNMOVED),
    "norm_ratio": Expected("vectors", gap(1, at.norm_ratio(at.features_alone)), at.norm_ratio(at.mean_alone), UNMOVED),
    "l0": Expected("vectors", at.features_per_row, 16, UNMOVED),
    "firing_rate": Expected("vectors", at.rate, 1, UNMOVED),
    "dead_fraction": Expected("vectors", at.never_fire, 0, UNMOVED),
    "dense_fraction": Expected("vectors", at.fire_in_a_tenth, 1, UNMOVED),
    # Effect on the subject, against rows replaced by hand.
    "ce_recovered": spliced(at.language, "ce_recovered", 1),
    "ce_recovered_mean": spliced(at.language, "ce_recovered_mean", 1, constant=0),
    "ce_increase": spliced(at.language, "ce_increase", 0),
    "kl": spliced(at.language, "kl", 0),
    "zero_shot_accuracy": spliced(at.clip, "zero_shot_accuracy", at.clip("zero_shot_accuracy_clean", "features")),
    "zero_shot_accuracy_clean": spliced(at.clip, "zero_shot_accuracy_clean"),
    "zero_shot_ce_recovered": spliced(at.clip, "zero_shot_ce_recovered", 1),
    "zero_shot_ce_recovered_mean": spliced(at.clip, "zero_shot_ce_recovered_mean", 1, constant=0),
    "caption_cosine_change": spliced(at.clip, "caption_cosine_change", 0),
    # Labels. All units are candidates in the scores with equal candidates.
    "label_auc": Expected("rows", 1, 0.5, 0.5),
    "label_auc_equal": Expected("rows", 1, 0.5, 0.5),
    "labels_found_share": Expected("rows", 1, 0, 0),
    "label_coverage": Expected("rows", 1, 1, at.rate_of_unit),
    "label_purity": Expected("rows", 1, at.base_rate, at.base_rate),
    "label_phi": Expected("rows", 1, 0, 0),
    "label_phi_equal": Expected("rows", 1, 0, 0),
    "label_average_precision": Expected("rows", 1, at.base_rate, at.precision_of_luck),
    "label_average_precision_equal": Expected("rows", 1, at.base_rate, at.precision_of_luck),
    "unit_auc": Expected("rows", 1, 0.5, 0.5),
    "monosemantic_share": Expected("rows", 1, 0, 0),
    "unit_coverage": Expected("rows", 1, 1, at.rates_of_units),
    "unit_purity": Expected("rows", 1, at.base_rate_of_first, at.base_rate_of_label),
    "unit_phi": Expected("rows", 1, 0, 0),
    # Facets: areas of concepts by facet, and the rest for the latents of concepts.
    **{name: Expected("images", 1, 0.5, at.area_of_luck(*kind)) for name, kind in BY_FACET.items()},
    **{f"concept_auc_{mean}": Expected("images", 1, 0.5, 0.5) for mean in SUMMARIES},
    "facet_breadth": Expected("images", of_concepts(4), NO_CONCEPT, NO_CONCEPT),
    "facets_reached": Expected("images", of_concepts(4), NO_CONCEPT, NO_CONCEPT),
    "multimodal_share": Expected("images", of_concepts(1), 0, 0),
    "text_agreement": Expected("images", of_concepts(1), NO_CONCEPT, NO_CONCEPT),
    "modality_share": Expected("towers", at.share_of_images, 0.5, 0.5),
    # Network dissection: no feature covers more than the 1 % of cells that a map may, so the map is the mask.
    "dissection_iou": Expected("images", 1, 0, lambda view: Between(0, 0.01)),
    "dissection_iou_equal": Expected("images", 1, 0, lambda view: Between(0, 0.01)),
    "unit_iou": Expected("images", 1, 0, lambda view: Between(0, 0.01)),
    "dissected_share": Expected("images", 1, 0, 0),
    # Explanations: a feature is told by one of four tokens, which is as much as an explanation can say.
    "explanation_correlation": Expected("text", 1, 0, at.luck_of_correlation),
    "token_correlation": Expected("text", at.token_correlation, 0, at.luck_of_correlation),
    "explanation_gain": Expected("text", at.beyond_tokens, 0, at.luck_of_difference),
    "context_gain": Expected("text", at.beyond_any_tokens, 0, at.luck_of_difference),
    "detection_auc": Expected("text", 1, 0.5, 0.5),
    "detection_auc_hard": Expected("text", 1, 0.5, 0.5),
    "fuzzing_auc": Expected("text", 1, 0.5, 0.5),
    # Similarity of pictures by their concept, for the latents of concepts.
    **{
        f"{name}{token}": expected
        for token, of_class_token in (("", False), ("_class", True))
        for name, expected in {
            "monosemanticity": Expected("images", of_concepts(1), at.similarity_of_chance, at.similarity_of_chance),
            "monosemanticity_excess": Expected("images", of_concepts(1), 0, 0),
            "clarity": Expected("images", of_concepts(1), 0, 0),
            "label_entropy": Expected(
                "images", of_concepts(0), at.entropy_of_all, at.entropy_of_chance(of_class_token)
            ),
        }.items()
    },
    # Resolution of neurons: the true features are not polysemantic.
    "polysemantic_share": Expected("rows", 0, 0, 0),
    "resolution_rate": Expected("rows", 1, 0, 0),
    "resolved_neurons": Expected("rows", 1, 0, 0),
    "concept_variance_explained": Expected("rows", at.variance_explained, 0, 0),
    "pair_selectivity": Expected("pairs", 1, at.one_factor_in_all, at.one_factor_in_all),
    "pair_invariance": Expected("pairs", 1, 0, 0),
    # Two dictionaries: the true one and itself in another order.
    "stability": Expected("twins", 1, 0, DIRECTIONS),
    "stable_share": Expected("twins", 1, 0, DIRECTIONS),
    "shared_share": Expected("twins", 1, 0, DIRECTIONS),
    "max_cosine": Expected("twins", 1, 0, DIRECTIONS),
    "universality": Expected("twins", 1, 0, at.luck_of_correlation),
    "nearest_parent": Expected("twins", 1, DENSE, RARE),
    "children": Expected("twins", at.children, DENSE, 0),
    "split_share": Expected("twins", at.splits, DENSE, 0),
    "inherited_share": Expected("twins", 1, DENSE, 0),
    # Recovery of the known directions.
    "mean_max_cosine": Expected("rows", 1, 0, DIRECTIONS),
    "mcc": Expected("rows", 1, 0, DIRECTIONS),
    "recovered_fraction": Expected("rows", 1, 0, DIRECTIONS),
    "unique_latents": Expected("rows", 1, MATCHED, DIRECTIONS),
    "firing_f1": Expected("rows", 1, at.f1_of_always, at.firing_rates),
    "firing_precision": Expected("rows", 1, at.rate_of_first, at.firing_rates),
    "firing_recall": Expected("rows", 1, 1, at.firing_rates),
}

CASES = pytest.mark.parametrize("metric", TABLE)
ON_EVERY_TOY = pytest.mark.parametrize("toy", TOYS)


def found(toy: str, metric: str, kind: str) -> Tensor:
    """Return the values of a metric, items that it leaves out excepted."""
    measured = values(toy, TABLE[metric].view, kind)
    return measured[metric][~measured[metric].isnan()] if metric in measured else torch.zeros(0)


@cache
def claimed(toy: str, metric: str, kind: str) -> Any:
    """Return what is claimed, numbers as values found beside values expected."""
    expected: Any = getattr(TABLE[metric], kind)
    if isinstance(expected, Except):
        expected = expected.on.get(toy, expected.value)
    if callable(expected):
        expected = expected(view(toy, TABLE[metric].view))
    if isinstance(expected, Absent | NoBar | Between | Luck):
        return expected
    measured = values(toy, TABLE[metric].view, kind)[metric]
    wanted = torch.as_tensor(expected, dtype=torch.float64).expand_as(measured)
    known = ~measured.isnan() & ~wanted.isnan()
    return measured[known], wanted[known]


def four_errors(items: Tensor, deviation: float | None = None) -> float:
    """Return four standard errors of the mean of items, of which one has this standard deviation if that is known."""
    n = len(items)
    if deviation is not None:
        return 4 * deviation / math.sqrt(n)
    quantile = float(stats.t.isf(stats.norm.sf(4), n - 1)) if n > 1 else math.inf
    return quantile * float(items.std()) / math.sqrt(n) if n > 1 else math.inf


def check(toy: str, metric: str, kind: str, up_to_luck: bool) -> None:
    """Compare with the table: exactly, item by item, or the mean up to luck."""
    claim, items = claimed(toy, metric, kind), found(toy, metric, kind)
    if isinstance(claim, Absent):
        assert not len(items), claim.why
    elif isinstance(claim, Luck):
        assert abs(float(items.mean()) - claim.value) <= four_errors(items, claim.deviation)
    elif isinstance(claim, Between):
        slack = four_errors(items) if up_to_luck else 1e-6
        assert claim.low - slack <= float(items.mean()) <= claim.high + slack
    elif not isinstance(claim, NoBar):
        measured, wanted = claim
        assert len(measured)
        if up_to_luck:
            assert abs(float((measured - wanted).mean())) <= four_errors(measured - wanted) + 1e-6
        else:
            torch.testing.assert_close(measured, wanted, atol=1e-6, rtol=1e-6)


@ON_EVERY_TOY
@CASES
def test_a_perfect_dictionary_attains_the_best_value(toy: str, metric: str) -> None:
    check(toy, metric, "perfect", up_to_luck=False)


@ON_EVERY_TOY
@CASES
def test_constant_units_score_chance(toy: str, metric: str) -> None:
    check(toy, metric, "constant", up_to_luck=False)


@ON_EVERY_TOY
@CASES
def test_shuffled_rows_score_chance(toy: str, metric: str) -> None:
    check(toy, metric, "shuffled", up_to_luck=True)


@ON_EVERY_TOY
@CASES
def test_random_directions_score_what_their_control_does(toy: str, metric: str) -> None:
    random, control = found(toy, metric, "random"), found(toy, metric, "control")
    if not comparable(toy, metric):
        pytest.skip("fewer items than tell their spread")
    slack = math.hypot(four_errors(random), four_errors(control))
    assert abs(float(random.mean() - control.mean())) <= slack + 1e-6


def comparable(toy: str, metric: str) -> bool:
    return min(len(found(toy, metric, kind)) for kind in ("random", "control")) >= MIN_COMPARED


@ON_EVERY_TOY
@pytest.mark.parametrize("kind", ["perfect", "constant", "shuffled", "random", "control"])
def test_values_keep_their_bounds(toy: str, kind: str) -> None:
    for metric in TABLE:
        (low, high), items = find_metric(metric).bounds, found(toy, metric, kind)
        assert ((items >= low - 1e-6) & (items <= high + 1e-6)).all(), metric


@ON_EVERY_TOY
def test_what_is_not_dealt_out_does_not_change(toy: str) -> None:
    """Order of rows for what is summed over rows; rows for what compares directions."""
    for metric, expected in TABLE.items():
        if expected.shuffled in (UNMOVED, DIRECTIONS):
            measured, wanted = found(toy, metric, "shuffled"), found(toy, metric, "perfect")
            torch.testing.assert_close(measured, wanted, atol=1e-6, rtol=0, msg=metric)


@ON_EVERY_TOY
def test_texts_dealt_out_agree_at_chance(toy: str) -> None:
    """Over all shifts of the texts a unit's own one takes every place."""
    seen = view(toy, "images")
    units, (images, texts) = seen.units("perfect"), seen.images.joint(seen.toy)
    places = [text_scores(units, images, texts.roll(n, 0))[0].values for n in range(len(texts))]
    mean = torch.stack(places).mean(0)
    assert float((mean[~mean.isnan()] - 0.5).abs().max()) < 1e-6


# The table is complete ------------------------------------------------------------------------------------------------


def test_every_metric_has_its_expectation() -> None:
    known = {name for name, one in METRICS.items() if one.module.removeprefix("sae.evaluation.") in FAMILIES}
    assert set(TABLE) == known, "state what a new metric has to be on the toys"
    assert {expected.view for expected in TABLE.values()} == set(VIEWS)


@ON_EVERY_TOY
@pytest.mark.parametrize("name", VIEWS)
def test_every_metric_is_measured_on_every_toy(toy: str, name: str) -> None:
    measured = values(toy, name, "perfect")
    assert set(measured) == {metric for metric, expected in TABLE.items() if expected.view == name}
    assert not [metric for metric, of_items in measured.items() if of_items.isnan().all()]


@CASES
def test_every_metric_compares_random_directions_with_their_control_somewhere(metric: str) -> None:
    """Of the areas by facet, those of facets unseen are too few in any toy; their mean over facets is compared."""
    few = {name for name, (_, unseen) in BY_FACET.items() if unseen}
    assert any(comparable(toy, metric) for toy in TOYS) != (metric in few)


@CASES
def test_chance_in_the_table_is_that_of_the_definition(metric: str) -> None:
    chance, expected = find_metric(metric).chance, TABLE[metric]
    for stated in (expected.constant, expected.shuffled):
        if chance is not None and isinstance(stated, int | float):
            assert stated == chance

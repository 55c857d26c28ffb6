"""How well single units find exact labels: area under the ROC curve, coverage with purity, correlation of firing.

A unit and a label are matched on one half of the items and scored on the other. Of units that match equally well the
one with the lowest number is taken. A unit that never fires takes part and scores what chance scores.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.evaluation.detection import Detection, winning_chances
from sae.evaluation.labels_equal import equal_label_scores
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.sample import Units

MONOSEMANTIC_AUC = 0.9
"""Held-out area under the ROC curve above which a unit stands for a label."""


def _numbers(values: Tensor) -> Int[Tensor, " items"]:
    return torch.arange(len(values))


@item_metric("label_auc", better="higher", unit="labels", bounds=(0.0, 1.0), chance=0.5, paired=True)
def label_auc(found: Detection) -> Float[Tensor, " labels"]:
    """Mean over labels of the held-out area under the ROC curve of the unit that separates the label best.

    The area is the probability that an item with the label has a larger activation than one without it, ties counting
    half (Mann and Whitney 1947). The unit is the one with the largest area on the half to match on. In [0, 1], 0.5 is
    chance, higher is better; a unit that never fires scores 0.5. More units are more candidates: compare dictionaries
    of different sizes by `label_auc_equal`. Labels on fewer than 10 items of a half are left out.
    """
    return found.auc[found.unit, _numbers(found.unit)]


@item_metric("label_auc_equal", better="higher", unit="labels", bounds=(0.0, 1.0), chance=0.5, paired=True)
def label_auc_equal(found: Detection, n_candidates: int) -> Float[Tensor, " labels"]:
    """`label_auc` with an equal number of candidates: what the best of m units drawn at random scores on average.

    m of the n units are drawn without replacement, dead ones among them, and the best of the drawn ones is chosen on
    the half to match on. The expectation over all draws is exact: with units sorted by matched area the one at rank r
    (0 is the best) wins C(n-1-r, m-1) of the C(n, m) draws; ties go to the lower unit number. In [0, 1], 0.5 is chance,
    higher is better; with m >= n it equals `label_auc`. m is that of the smallest set of units compared.
    """
    return (winning_chances(found.match_auc, n_candidates) * found.auc).sum(0)


@item_metric("labels_found_share", better="higher", unit="labels", bounds=(0.0, 1.0), chance=0.0, paired=True)
def labels_found_share(found: Detection) -> Float[Tensor, " labels"]:
    """Share of labels that some unit finds: the unit matched as in `label_auc` has a held-out area above 0.9.

    In [0, 1], higher is better; a unit that never fires finds nothing.
    """
    return (label_auc(found).values > MONOSEMANTIC_AUC).double()


@item_metric("label_coverage", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True)
def label_coverage(found: Detection) -> Float[Tensor, " labels"]:
    """Coverage: mean over labels of the share of the label's items on which its unit fires (recall).

    Unit as in `label_auc`, held-out items; firing is an activation above zero. In [0, 1], higher is better, 0 for a
    unit that never fires. A unit that always fires covers everything: read it with `label_purity` only.
    """
    return found.coverage(found.unit, _numbers(found.unit))


@item_metric("label_purity", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True)
def label_purity(found: Detection) -> Float[Tensor, " labels"]:
    """Purity: mean over labels of the share of the firings of the label's unit that have the label (precision).

    Unit as in `label_auc`, held-out items; firing is an activation above zero. In [0, 1], higher is better; chance is
    the share of items with the label, which is also what a unit that never fires scores. A unit that hardly ever fires
    is easily pure: read it with `label_coverage` only.
    """
    return found.purity(found.unit, _numbers(found.unit))


@item_metric("label_phi", better="higher", unit="labels", bounds=(-1.0, 1.0), chance=0.0, paired=True)
def label_phi(found: Detection) -> Float[Tensor, " labels"]:
    """Mean over labels of the held-out correlation between firing and label of the unit that correlates best.

    phi = (TP n - F P) / sqrt(F (n - F) P (n - P)) over n items: F where it fires, P with the label, TP both
    (Matthews 1975); the unit is the one with the largest phi on the half to match on. Neither coverage nor purity alone
    raises it, nor does firing always or never, which scores 0. In [-1, 1], 0 is chance, higher is better. Firing is an
    activation above zero, so units that rarely rest need a threshold of their own before they are judged by it.
    """
    return found.phi[found.match_phi.argmax(0), _numbers(found.unit)]


@item_metric(
    "label_average_precision", better="higher", unit="labels", bounds=(0.0, 1.0), chance=None, paired=True, version=2
)
def label_average_precision(found: Detection) -> Float[Tensor, " labels"]:
    """Mean over labels of the held-out average precision of the unit that finds the label most precisely.

    Average precision is the mean, over items with the label, of the share of items with the label among all whose
    activation is no smaller: the area under the curve of precision over recall, with no threshold to choose, so dense
    and sparse units are treated alike. Unlike the area under the ROC curve it is low where many items without a rare
    label are ranked high. The unit is the one with the largest average precision on the half to match on, among the 4
    with the largest area and the 4 with the largest phi there. In [0, 1], higher is better; a unit that never fires
    scores the share of items with the label, which is chance.
    """
    return found.average_precision()


@item_metric("unit_auc", better="higher", unit="latents", bounds=(0.0, 1.0), chance=0.5, paired=False)
def unit_auc(found: Detection) -> Float[Tensor, " units"]:
    """Mean over units of the held-out area under the ROC curve for the label that the unit separates best.

    The label is the one with the largest area on the half to match on. In [0, 1], 0.5 is chance, higher is better; a
    unit that never fires scores 0.5 and counts.
    """
    return found.auc[_numbers(found.label), found.label]


@item_metric("monosemantic_share", better="higher", unit="latents", bounds=(0.0, 1.0), chance=0.0, paired=False)
def monosemantic_share(found: Detection) -> Float[Tensor, " units"]:
    """Share of units whose `unit_auc` is above 0.9; a unit that never fires counts as 0.

    In [0, 1], higher is better. The area of a rare label leaves room for other labels: a unit that fires on 5 % of the
    items, always where the label is, has an area of about 0.975 however rare the label. Read it with `unit_purity`.
    """
    return (unit_auc(found).values > MONOSEMANTIC_AUC).double()


@item_metric("unit_coverage", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def unit_coverage(found: Detection) -> Float[Tensor, " units"]:
    """Mean over units of the share of its best label's items on which the unit fires, on held-out items.

    Label as in `unit_auc`. In [0, 1], higher is better, 0 for a unit that never fires; read it with `unit_purity`.
    """
    return found.coverage(_numbers(found.label), found.label)


@item_metric("unit_purity", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def unit_purity(found: Detection) -> Float[Tensor, " units"]:
    """Mean over units of the share of the unit's firings that have its best label, on held-out items.

    Label as in `unit_auc`. In [0, 1], higher is better; a unit that never fires counts as chance, which is the share of
    items with a label, averaged over labels. Read it with `unit_coverage`.
    """
    purity = found.purity(_numbers(found.label), found.label)
    return torch.where(found.firing.n_latent > 0, purity, found.base_rate.mean())


@item_metric("unit_phi", better="higher", unit="latents", bounds=(-1.0, 1.0), chance=0.0, paired=False)
def unit_phi(found: Detection) -> Float[Tensor, " units"]:
    """Mean over units of the held-out correlation between the unit's firing and the label that correlates best with it.

    phi as in `label_phi`; the label is the one with the largest phi on the half to match on. In [-1, 1], 0 is chance,
    higher is better; a unit that always or never fires scores 0 and counts. Unlike `unit_auc` it is low for a unit that
    answers to many labels, or to part of one.
    """
    return found.phi[_numbers(found.label), found.match_phi.argmax(1)]


def label_scores(units: Units, n_candidates: int | None = None) -> list[Measured]:
    """Return all label metrics, and those with equal candidates where asked for.

    Args:
        units: what to score.
        n_candidates: units of the smallest set that this one is compared with.
    """
    found = Detection(units)
    of_labels = (label_auc, labels_found_share, label_coverage, label_purity, label_phi, label_average_precision)
    of_units = (unit_auc, monosemantic_share, unit_coverage, unit_purity, unit_phi)
    measured = [metric(found) for metric in (*of_labels, *of_units)]
    if n_candidates is not None:
        measured[1:1] = [label_auc_equal(found, n_candidates), *equal_label_scores(found, n_candidates)]
    return measured


def best_labels(units: Units) -> Int[Tensor, " units"]:
    """Return the number of the label that each unit separates best on the half to match on.

    -1 for units that do not tell any items apart there, dead ones above all. Numbers index `sample.table.names`.
    """
    on_match = units.auc[0]
    return torch.where((on_match == 0.5).all(1), -1, on_match.argmax(1))


def label_table(units: Units) -> list[dict[str, Any]]:
    """Return for each label how many items have it, its unit, and how well this unit finds it on held-out items."""
    found = Detection(units)
    columns = [metric(found).values.tolist() for metric in (label_auc, label_coverage, label_purity)]
    table = units.sample.table
    rows = zip(table.names, table.columns.sum(0).tolist(), found.unit.tolist(), *columns, strict=True)
    return [
        {
            "label": name,
            "positives": positives,
            "unit": unit,
            "auc": round(auc, 4),
            "coverage": round(coverage, 4),
            "purity": round(purity, 4),
        }
        for name, positives, unit, auc, coverage, purity in rows
    ]

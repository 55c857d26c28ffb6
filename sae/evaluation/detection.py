"""Units as detectors of labels: areas, firings and precisions, on the half to match on and the half to score on."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.evaluation.recovery import Firing
from sae.evaluation.responses import UNIT_BLOCK, Responses
from sae.evaluation.sample import Units
from sae.evaluation.weights import UNITS_AT_ONCE, Weights

SHORTLIST = 4
"""Units with the largest area, and as many with the largest phi, that are tried as a label's detector by precision; on
average so many of them where only a part of all units is drawn."""
ITEMS_AT_ONCE = 32
"""Items for which units are ranked at a time."""


class Detection:
    """Every unit as a detector of every label, on the half to match on and on the half to score on."""

    def __init__(self, units: Units) -> None:
        self.match_auc, self.auc = units.auc
        self._matched, self._scored = zip(units.halves, units.sample.label_halves, strict=True)

    @cached_property
    def firing(self) -> Firing:
        """Firings on the items to score on."""
        return Firing.of(*self._scored)

    @cached_property
    def phi(self) -> Float[Tensor, "units labels"]:
        """Correlation of firing with the label on the items to score on."""
        return phi_coefficient(self.firing, self._scored[1].n_items)

    @cached_property
    def match_phi(self) -> Float[Tensor, "units labels"]:
        """Correlation of firing with the label on the items to match on."""
        return phi_coefficient(Firing.of(*self._matched), self._matched[1].n_items)

    def average_precision(self, n_candidates: int | None = None) -> Float[Tensor, " labels"]:
        """Average precision of each label's unit on the items to score on (see `label_average_precision`).

        With a number of candidates, the mean over all draws of so many units (see `label_average_precision_equal`).
        """
        n_units = len(self.match_auc)
        drawn = min(n_candidates or n_units, n_units)
        listed = min(-(-SHORTLIST * n_units // drawn), n_units)
        shortlist = torch.zeros(self.match_auc.shape, dtype=torch.bool)
        for scores in (self.match_auc, self.match_phi):
            shortlist.scatter_(0, scores.topk(listed, 0).indices, True)
        unit, label = shortlist.nonzero().T
        on_match = average_precision(*self._matched, unit, label)
        # Shortlisted units come before all others, in the order of their precision.
        matched = torch.full(shortlist.shape, -1.0, dtype=torch.float64).index_put_((unit, label), on_match)
        chance = winning_chances(matched, drawn)[unit, label]
        some = chance > 0
        held_out = chance[some] * average_precision(*self._scored, unit[some], label[some])
        luck = 1 - torch.zeros(len(self.base_rate), dtype=torch.float64).index_add_(0, label, chance)
        return (luck * self.base_rate).index_add_(0, label[some], held_out)

    @cached_property
    def base_rate(self) -> Float[Tensor, " labels"]:
        """Share of the items to score on that have each label."""
        return self._scored[1].totals / self._scored[1].n_items

    @cached_property
    def unit(self) -> Int[Tensor, " labels"]:
        """Unit that separates each label best on the items to match on."""
        return self.match_auc.argmax(0)

    @cached_property
    def label(self) -> Int[Tensor, " units"]:
        """Label that each unit separates best on the items to match on."""
        return self.match_auc.argmax(1)

    def coverage(self, unit: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Share of a label's items on which a unit fires."""
        return self.firing.hits[unit, label] / self.firing.n_feature[label]

    def purity(self, unit: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Share of a unit's firings that have a label; the label's base rate where it never fires."""
        n_fired = self.firing.n_latent[unit]
        return torch.where(n_fired > 0, self.firing.hits[unit, label] / n_fired, self.base_rate[label])


def phi_coefficient(firing: Firing, n_items: int) -> Float[Tensor, "units labels"]:
    """Return the Pearson correlation of firing and label over items, 0 where either never changes."""
    fired, labelled = firing.n_latent[:, None] / n_items, firing.n_feature / n_items
    phi = torch.empty_like(firing.hits)
    for units in torch.arange(len(phi)).split(UNITS_AT_ONCE):
        rate = fired[units]
        variance = rate * (1 - rate) * labelled * (1 - labelled)
        deviation = torch.where(variance > 0, variance, torch.inf).sqrt()
        phi[units] = (firing.hits[units] / n_items - rate * labelled) / deviation
    return phi


def average_precision(
    responses: Responses, labels: Weights, unit: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Return, of pairs of unit and label, the mean over the label's items of the precision of the unit down to there.

    The precision is that among all items with no smaller activation. If `r` is how many these are, at each of the
    label's items, it is how many of them have as small an `r`, divided by `r`.
    """
    found, order = torch.empty(len(unit), dtype=torch.float64), unit.argsort(stable=True)
    distinct, counts = unit[order].unique_consecutive(return_counts=True)
    for units, pairs in zip(distinct.split(UNIT_BLOCK), order.split(_sums(counts, UNIT_BLOCK)), strict=True):
        places = responses.places(units)
        rows = torch.searchsorted(units, unit[pairs]).tolist()
        for pair, row, number in zip(pairs.tolist(), rows, label[pairs].tolist(), strict=True):
            place = np.sort(places[row, labels.members(number)])
            found[pair] = float((np.searchsorted(place, place, side="right") / place).mean())
    return found


def _sums(counts: Int[Tensor, " units"], size: int) -> list[int]:
    """Add up stretches of `size` numbers."""
    return [int(part.sum()) for part in counts.split(size)]


def win_probabilities(n_units: int, n_candidates: int) -> Float[Tensor, " units"]:
    """Return how often the unit at each rank is the best of `n_candidates` drawn at random without replacement.

    C(n-1-r, m-1) / C(n, m) for rank r, as a running product: m / n for the best, and from rank r to the next one times
    (n-m-r) / (n-1-r).
    """
    drawn = min(n_candidates, n_units)
    rank = torch.arange(n_units - 1, dtype=torch.float64)
    ratios = (n_units - drawn - rank).clamp(min=0) / (n_units - 1 - rank)
    return drawn / n_units * torch.cat([torch.ones(1, dtype=torch.float64), ratios]).cumprod(0)


def winning_chances(
    matched: Float[Tensor, "units items"], n_candidates: int | None = None
) -> Float[Tensor, "units items"]:
    """Return the chance of each unit to be the best for each item among candidates drawn at random.

    Weighting what units score on held-out data by these chances gives what the best of `n_candidates` units scores on
    average over all draws without replacement, exactly. The best has the largest value in `matched`, the first of
    equals. All units are candidates if no number is given, or one that is as large.
    """
    probabilities = win_probabilities(len(matched), n_candidates or len(matched))[:, None]
    chances = torch.zeros(matched.shape, dtype=torch.float64)
    for values, found in zip(matched.split(ITEMS_AT_ONCE, 1), chances.split(ITEMS_AT_ONCE, 1), strict=True):
        ranked = values.sort(dim=0, descending=True, stable=True).indices
        found.scatter_(0, ranked, probabilities.expand_as(ranked))
    return chances

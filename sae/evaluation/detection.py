"""Units as detectors of labels: areas, firings and precisions, on the half to match on and the half to score on."""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.recovery import Firing
from sae.evaluation.responses import UNIT_BLOCK, Responses, SparseResponses
from sae.evaluation.sample import Units

SHORTLIST = 4
"""Units with the largest area, and as many with the largest phi, that are tried as a label's detector by precision; on
average so many of them where only a part of all units is drawn."""


class Detection:
    """Every unit as a detector of every label, on the half to match on and on the half to score on."""

    def __init__(self, units: Units) -> None:
        self._responses, self._columns, self._match = units.responses, units.sample.table.columns, units.sample.match
        self.match_auc, self.auc = units.auc

    @cached_property
    def firing(self) -> Firing:
        """Firings on the items to score on."""
        return Firing.of(self._responses.on(~self._match), self._columns[~self._match])

    @cached_property
    def phi(self) -> Float[Tensor, "units labels"]:
        """Correlation of firing with the label on the items to score on."""
        return phi_coefficient(self.firing, int((~self._match).sum()))

    @cached_property
    def match_phi(self) -> Float[Tensor, "units labels"]:
        """Correlation of firing with the label on the items to match on."""
        firing = Firing.of(self._responses.on(self._match), self._columns[self._match])
        return phi_coefficient(firing, int(self._match.sum()))

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
        on_match = self._precision(self._match, unit, label)
        # Shortlisted units come before all others, in the order of their precision.
        matched = torch.full(shortlist.shape, -1.0, dtype=torch.float64).index_put_((unit, label), on_match)
        chance = winning_chances(matched, drawn)[unit, label]
        some = chance > 0
        held_out = chance[some] * self._precision(~self._match, unit[some], label[some])
        luck = 1 - torch.zeros(len(self.base_rate), dtype=torch.float64).index_add_(0, label, chance)
        return (luck * self.base_rate).index_add_(0, label[some], held_out)

    def _precision(
        self, half: Bool[Tensor, " items"], unit: Int[Tensor, " pairs"], label: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        return average_precision(self._responses.on(half), self._columns[half], unit, label)

    @cached_property
    def base_rate(self) -> Float[Tensor, " labels"]:
        """Share of the items to score on that have each label."""
        return self._columns[~self._match].double().mean(0)

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
    variance = fired * (1 - fired) * labelled * (1 - labelled)
    return (firing.hits / n_items - fired * labelled) / torch.where(variance > 0, variance, torch.inf).sqrt()


def average_precision(
    responses: Responses,
    labels: Bool[Tensor, "items labels"],
    unit: Int[Tensor, " pairs"],
    label: Int[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Return the mean, over items with a label, of the precision among all items with no smaller activation.

    Args:
        responses: of the units.
        labels: of the items.
        unit: of each pair.
        label: of each pair, by number of its column.
    """
    columns, found = np.ascontiguousarray(labels.numpy().T), np.zeros(len(unit))
    order = unit.argsort(stable=True)
    distinct, sizes = unit[order].unique_consecutive(return_counts=True)
    for (values, items), pairs in zip(_entries(responses, distinct), order.split(sizes.tolist()), strict=True):
        ordered = np.sort(values)
        for pair in pairs.tolist():
            own = columns[label[pair]]
            found[pair] = _precision_of(ordered, np.sort(values[own[items]]), len(own) - len(items), int(own.sum()))
    return torch.from_numpy(found)


def _entries(
    responses: Responses, units: Int[Tensor, " chosen"]
) -> Iterator[tuple[Float[np.ndarray, " entries"], Int[np.ndarray, " entries"]]]:
    """Yield the activations of each unit and the items that they are on; of sparse units, those that are not 0."""
    if isinstance(responses, SparseResponses):
        for unit in units.tolist():
            entries = slice(int(responses.offsets[unit]), int(responses.offsets[unit + 1]))
            yield responses.values[entries].numpy(), responses.items[entries].numpy()
    else:
        everything = np.arange(responses.n_items)
        for block in units.split(UNIT_BLOCK):
            for column in responses.columns(block).T.contiguous().numpy():
                yield column, everything


def _precision_of(
    ordered: Float[np.ndarray, " entries"], inside: Float[np.ndarray, " own_entries"], n_silent: int, n_own: int
) -> float:
    """Return the average precision of rising activations, those with the label `inside`, and silent items at 0."""
    silent_own, negative = n_own - len(inside), inside < 0
    # Equal activations are taken in together, and silent items before whatever is negative.
    hits = len(inside) - np.searchsorted(inside, inside) + silent_own * negative
    total = float((hits / (len(ordered) - np.searchsorted(ordered, inside) + n_silent * negative)).sum())
    if silent_own:
        hits_on_silence = n_own - int(negative.sum())
        total += silent_own * hits_on_silence / (n_silent + int((ordered > 0).sum()))
    return total / n_own


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
    ranked = matched.sort(dim=0, descending=True, stable=True).indices
    chances = win_probabilities(len(matched), n_candidates or len(matched))
    return torch.zeros(matched.shape, dtype=torch.float64).scatter_(0, ranked, chances[:, None].expand_as(ranked))

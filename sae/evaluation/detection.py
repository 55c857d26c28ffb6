"""Units as detectors of labels: areas, firings and precisions, on the half to match on and the half to score on."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.recovery import Firing
from sae.evaluation.sample import Units

SHORTLIST = 4
"""Units with the largest area, and as many with the largest phi, that are tried as a label's detector by precision."""


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

    @cached_property
    def average_precision(self) -> Float[Tensor, " labels"]:
        """Average precision of each label's unit on the items to score on (see `label_average_precision`)."""
        auc, phi, n = self.match_auc, self.match_phi, min(SHORTLIST, len(self.match_auc))
        shortlist = torch.cat([auc.topk(n, 0).indices, phi.topk(n, 0).indices])
        found = []
        for label, units in enumerate(shortlist.T):
            activations = self._responses.columns(units)
            own = self._columns[:, label, None].expand_as(activations)
            best = average_precision(activations[self._match], own[self._match]).argmax()
            held_out = ~self._match
            found.append(average_precision(activations[held_out, best, None], own[held_out, best, None])[0])
        return torch.stack(found)

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
    activations: Float[Tensor, "items pairs"], labels: Bool[Tensor, "items pairs"]
) -> Float[Tensor, " pairs"]:
    """Return the mean, over items with the label, of the precision among all items with no smaller activation."""
    values, order = activations.sort(0, descending=True)
    hits = labels.gather(0, order).double().cumsum(0)
    precision = hits / torch.arange(1, len(values) + 1, dtype=torch.float64)[:, None]
    # Equal activations are taken in together: precision is that at the end of their run.
    ends = torch.ones_like(labels)
    ends[:-1] = values[:-1] != values[1:]
    before = torch.where(ends, hits, 0).cummax(0).values.roll(1, 0)
    before[0] = 0
    return (torch.where(ends, hits - before, 0) * precision).sum(0) / hits[-1]


def win_probabilities(n_units: int, n_candidates: int) -> Float[Tensor, " units"]:
    """Return how often the unit at each rank is the best of `n_candidates` drawn at random without replacement.

    C(n-1-r, m-1) / C(n, m) for rank r, as a running product: m / n for the best, and from rank r to the next one times
    (n-m-r) / (n-1-r).
    """
    drawn = min(n_candidates, n_units)
    rank = torch.arange(n_units - 1, dtype=torch.float64)
    ratios = (n_units - drawn - rank).clamp(min=0) / (n_units - 1 - rank)
    return drawn / n_units * torch.cat([torch.ones(1, dtype=torch.float64), ratios]).cumprod(0)

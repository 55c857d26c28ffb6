"""Does a frequent class get a unit of its own? How often classes occur against how well single units detect them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.evaluation.metric import resampled
from sae.lab.spread import Drawn, Spread, rank_correlation

STEPS, RIDGE = 30, 1e-4
OTHER_SEED = "latents, other seed's frequencies"
MIN_CLASSES = 20
"""Classes below which a relation with their frequency says nothing."""


@dataclass(frozen=True)
class Owned:
    """How well each class's unit detects it.

    Attributes:
        unit: the one that detects the class best on the half to match on.
        auc: of it on the other half.
        own: whether that is above 0.9, and the unit detects no other class better on the half to match on.
        n_units: how many units detect each class best of all classes on the half to match on.
    """

    unit: Int[Tensor, " classes"]
    auc: Float[Tensor, " classes"]
    own: Bool[Tensor, " classes"]
    n_units: Int[Tensor, " classes"]

    @classmethod
    def of(cls, match: Float[Tensor, "units classes"], score: Float[Tensor, "units classes"]) -> "Owned":
        """Choose units by their areas on one half, and score them by those on the other."""
        unit, here = match.argmax(0), torch.arange(match.shape[1])
        auc, varied = score[unit, here], (match != 0.5).any(1)
        n_units = match[varied].argmax(1).bincount(minlength=len(here))
        return cls(unit, auc, (auc > MONOSEMANTIC_AUC) & (match[unit].argmax(1) == here), n_units)


@dataclass(frozen=True)
class Related:
    """How having a unit of one's own goes with frequency.

    Attributes:
        slope: of a logistic regression of `own` on log10 of the frequency: the log odds gained per decade.
        intercept: of the same.
        ranks: Spearman's correlation of the area with the frequency.
        within: the same with ranks taken within each group of classes, some of which are harder than others.
        number: Spearman's correlation of the number of units with the frequency.
    """

    slope: Drawn
    intercept: float
    ranks: Drawn
    within: Drawn
    number: Drawn

    @classmethod
    def of(
        cls, owned: Owned, frequency: Float[Tensor, " classes"], group: Int[Tensor, " classes"], seed: int
    ) -> "Related":
        """Relate them over classes, with intervals that resample these."""
        x = frequency.double().log10()
        point = logistic(x, owned.own, torch.ones(1, len(x), dtype=torch.float64))[0]
        drawn = logistic(x, owned.own, resampled(len(x), seed))[:, 1]
        return cls(
            Drawn(float(point[1]), drawn),
            float(point[0]),
            rank_correlation(owned.auc, x, seed),
            rank_correlation(within(owned.auc, group), within(x, group), seed),
            rank_correlation(owned.n_units.double(), x, seed),
        )

    def figures(self, who: str) -> dict[str, float]:
        return (
            self.slope.spread.figures(f"{who}, log odds per decade")
            | self.ranks.spread.figures(f"{who}, rank correlation")
            | self.within.spread.figures(f"{who}, rank correlation within groups")
            | self.number.spread.figures(f"{who}, number per class, rank correlation")
        )

    def above(self, other: "Related") -> dict[str, Spread]:
        """Return how much more of each goes with frequency than of another's, over resamples of the same classes."""
        return {"log odds per decade": self.slope.minus(other.slope), "rank correlation": self.ranks.minus(other.ranks)}


def within(values: Float[Tensor, " classes"], group: Int[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """Return each value's rank among its group, from 0 to 1, ties sharing their mean."""
    below = (values[None] < values[:, None]).double() + (values[None] == values[:, None]).double() / 2
    same = (group[None] == group[:, None]).double()
    return (below * same).sum(1) / same.sum(1)


def logistic(
    x: Float[Tensor, " classes"], y: Bool[Tensor, " classes"], weights: Float[Tensor, "draws classes"]
) -> Float[Tensor, "draws 2"]:
    """Return intercept and slope of a logistic regression for every set of weights, by Newton's method.

    A little ridge keeps the slope finite where a draw is separable.
    """
    centre, target = x.mean(), y.double()
    design = torch.stack([torch.ones_like(x), x - centre], 1)
    found = torch.zeros(len(weights), 2, dtype=torch.float64)
    penalty = RIDGE * len(x) * torch.eye(2, dtype=torch.float64)
    for _ in range(STEPS):
        p = torch.sigmoid(found @ design.T)
        gradient = (weights * (target - p)) @ design - found @ penalty
        hessian = torch.einsum("dn,ni,nj->dij", weights * p * (1 - p), design, design) + penalty
        # Steps are bounded: far out the likelihood is flat, and a full step would overshoot.
        found = found + torch.linalg.solve(hessian, gradient).clamp(-2, 2)
    return torch.stack([found[:, 0] - found[:, 1] * centre, found[:, 1]], 1)

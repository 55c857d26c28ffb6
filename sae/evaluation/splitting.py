"""Feature splitting: how the latents of a dictionary come apart in a larger one.

An edge leads from a latent of the smaller dictionary, the parent, to a latent of the larger one, the child, where their
*masked cosine* is high: the cosine of their activations on the rows on which the parent fires, or on those on which the
child fires, whichever is larger (Bricken et al. 2023, Towards Monosemanticity). A child that fires on part of what its
parent fires on, with the same strengths, reaches 1. A child may have several parents, so this is no tree.

What counts as high depends on how often latents fire. One that fires on few rows finds, among hundreds of parents that
each fire on many, some that are active on most of these rows by chance, and a masked cosine looks at no other rows;
0.4, the bar of the source, is then met by nearly everything. So the bar is what chance reaches: see `chance_bar`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.products import moments, power_products
from sae.evaluation.responses import SparseResponses

CHANCE = 0.05
"""Share of unrelated latents that the bar lets through."""
MIN_TOGETHER = 10
"""Rows on which two latents must both fire; on a single shared row any two have a masked cosine of 1."""


@dataclass(frozen=True)
class Edges:
    """From latents of one level to latents of the next, sorted by parent."""

    parent: Int[Tensor, " edges"]
    child: Int[Tensor, " edges"]
    cosine: Float[Tensor, " edges"]


@dataclass(frozen=True)
class Step:
    """From the latents of a smaller dictionary (parents) to those of a larger one (children), on the same rows.

    Attributes:
        parent_rates: share of rows on which each parent fires; 0 for dead ones.
        child_rates: the same of the children.
        nearest: largest masked cosine of each child with a parent; 0 where none fires with it often enough.
        second: second largest masked cosine of each parent with a child, so it splits at every bar below.
        edges: pairs with a masked cosine above the bar.
        bar: masked cosine above which there is an edge.
    """

    parent_rates: Float[Tensor, " parents"]
    child_rates: Float[Tensor, " children"]
    nearest: Float[Tensor, " children"]
    second: Float[Tensor, " parents"]
    edges: Edges
    bar: float

    @classmethod
    def between(cls, parents: SparseResponses, offspring: SparseResponses, bar: float = float("inf")) -> "Step":
        """Compare every latent of one dictionary with every latent of another.

        Raises:
            EvaluationError: other rows, or activations below 0.
        """
        if parents.n_items != offspring.n_items:
            raise EvaluationError(
                f"splitting: the dictionaries must be read on the same rows, not on {parents.n_items} and "
                f"{offspring.n_items}."
            )
        if any(len(latents.values) and latents.values.min() < 0 for latents in (parents, offspring)):
            raise EvaluationError("splitting: some activations are below 0; masks need latents that rest at 0.")
        nearest, second = torch.zeros(offspring.n_units, dtype=torch.float64), []
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for first, cosine, together in masked_cosines(parents, offspring):
            cosine = torch.where(together >= MIN_TOGETHER, cosine, 0.0)
            nearest = torch.maximum(nearest, cosine.amax(0))
            second.append(F.pad(cosine, (0, 1)).topk(2, dim=1).values[:, 1])
            parent, child = (cosine > bar).nonzero(as_tuple=True)
            found.append((parent + first, child, cosine[parent, child]))
        return cls(
            parent_rates=parents.n_fired.double() / parents.n_items,
            child_rates=offspring.n_fired.double() / offspring.n_items,
            nearest=nearest,
            second=torch.cat(second),
            edges=Edges(*(torch.cat(column) for column in zip(*found, strict=True))),
            bar=bar,
        )

    def split_share(self, bar: float) -> float:
        """Return the share of live parents that split where the bar is this high."""
        return float((self.second[self.parent_rates > 0] > bar).double().mean())

    def inherited_share(self, bar: float) -> float:
        """Return the share of live children that have a parent where the bar is this high."""
        return float((self.nearest[self.child_rates > 0] > bar).double().mean())


def chance_bar(step: Step) -> float:
    """Return the masked cosine that 5 % of unrelated latents reach with their nearest parent.

    Args:
        step: to latents that owe nothing to the data and fire as often as those of the larger dictionary.
    """
    return float(step.nearest[step.child_rates > 0].quantile(1 - CHANCE))


@item_metric("nearest_parent", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def nearest_parent(step: Step) -> Float[Tensor, " children"]:
    """Largest masked cosine of a latent of the larger dictionary with a latent of the smaller one.

    The masked cosine of two latents is the cosine of their activations on the rows on which one of them fires, the
    larger of the two (Bricken et al. 2023, Towards Monosemanticity). Differs from the source in that both must fire
    together on at least 10 rows. Rare latents reach much by chance, so only the difference to random directions that
    fire as often says something. No direction is better; dead latents are left out.
    """
    return torch.where(step.child_rates > 0, step.nearest, float("nan"))


@item_metric(
    "children", better="neither", unit="latents", bounds=(0.0, float("inf")), chance=None, paired=False, version=2
)
def children(step: Step) -> Float[Tensor, " parents"]:
    """Number of latents of the larger dictionary that a latent leads to: masked cosine above the bar.

    The masked cosine is that of `nearest_parent`. The bar is what 5 % of random directions, which fire as often as the
    latents of the larger dictionary, reach with a latent of the smaller one; the source takes 0.4 whatever the firing
    rates. No direction is better; dead latents have no children.
    """
    return torch.bincount(step.edges.parent, minlength=len(step.parent_rates)).double()


@item_metric("split_share", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False, version=2)
def split_share(step: Step) -> Float[Tensor, " parents"]:
    """Share of live latents that split: two or more `children` in the larger dictionary.

    No direction is better: it describes how a larger dictionary relates to a smaller. Dead latents are left out.
    """
    return torch.where(step.parent_rates > 0, (step.second > step.bar).double(), float("nan"))


@item_metric(
    "inherited_share", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False, version=2
)
def inherited_share(step: Step) -> Float[Tensor, " children"]:
    """Share of live latents of the larger dictionary that come from a latent of the smaller one (see `children`).

    The rest are new, or cannot be told from chance, which by the choice of the bar is 0.05. No direction is better.
    Dead latents are left out.
    """
    return torch.where(step.child_rates > 0, (step.nearest > step.bar).double(), float("nan"))


def splitting_scores(step: Step) -> list[Measured]:
    """Return all metrics of a step."""
    return [metric(step) for metric in (nearest_parent, children, split_share, inherited_share)]


def masked_cosines(
    one: SparseResponses, two: SparseResponses
) -> Iterator[tuple[int, Float[Tensor, "block others"], Float[Tensor, "block others"]]]:
    """Yield, for consecutive units of the first, the masked cosine with all of the second and the shared rows' count.

    Activations must not be negative. The cosine of units that never fire together is 0.
    """
    norms, other_norms = moments(one)[1], moments(two)[1]
    for first, sums in power_products(one, two, [(1, 1), (0, 2), (2, 0), (0, 0)]):
        dot, two_where_one, one_where_two, together = sums
        rows = slice(first, first + len(dot))
        # Either mask leaves the unit it comes from whole, so the cosine is larger where the other loses more.
        least = torch.minimum(norms[rows, None] * two_where_one, one_where_two * other_norms)
        yield first, torch.where(together > 0, dot * least.rsqrt(), 0.0), together

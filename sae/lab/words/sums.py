"""Sparse sums: a direction written as a few others, none of them taken away."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Sum:
    """A direction as a sum of others.

    Attributes:
        terms: numbers of the others, in the order in which they came in.
        weights: of each, positive.
        cosine: of the sum with the direction.
    """

    terms: tuple[int, ...]
    weights: tuple[float, ...]
    cosine: float


def decompose(
    target: Float[Tensor, " d"], directions: Float[Tensor, "units d"], n_terms: int, beyond: Sequence[int] = ()
) -> Sum:
    """Write a direction as a sparse non-negative sum of others by orthogonal matching pursuit.

    In each round the direction that the rest is nearest to comes in, and all weights are fitted anew. It stops early
    where nothing points along the rest any more, and terms whose weight becomes 0 are left out.

    Args:
        target: of any length.
        directions: of any length; a row of zeros is never taken.
        n_terms: most rounds.
        beyond: rows that must not be taken.
    """
    target, units = F.normalize(target.double(), dim=0), F.normalize(directions.double(), dim=1)
    terms: list[int] = []
    weights, rest = target.new_zeros(0), target
    for _ in range(min(n_terms, len(units))):
        along = units @ rest
        along[[*terms, *beyond]] = -torch.inf
        if along.max() <= 1e-9:
            break
        terms.append(int(along.argmax()))
        weights = non_negative(units[terms], target)
        rest = target - weights @ units[terms]
    kept = [place for place in range(len(terms)) if weights[place] > 0]
    rebuilt = target - rest
    cosine = float(F.cosine_similarity(rebuilt, target, dim=0)) if kept else 0.0
    return Sum(tuple(terms[place] for place in kept), tuple(float(weights[place]) for place in kept), cosine)


def non_negative(directions: Float[Tensor, "terms d"], target: Float[Tensor, " d"]) -> Float[Tensor, " terms"]:
    """Return the weights, none negative, whose sum of directions has the smallest squared distance to a target.

    By the active-set method of Lawson and Hanson (*Solving Least Squares Problems*, 1974).
    """
    gram, along = directions @ directions.T, directions @ target
    weights, passive = torch.zeros_like(along), torch.zeros(len(along), dtype=torch.bool)
    for _ in range(3 * len(along)):
        slope = along - gram @ weights
        slope[passive] = -torch.inf
        if slope.max() <= 1e-10:
            break
        passive[slope.argmax()] = True
        while True:
            inside = passive.nonzero()[:, 0]
            solved = torch.linalg.lstsq(gram[inside][:, inside], along[inside, None], driver="gelsd").solution[:, 0]
            if (solved > 0).all():
                break
            old = weights[inside]
            bad = solved <= 0
            step = (old[bad] / (old[bad] - solved[bad]).clamp(min=1e-300)).min()
            weights[inside] = old + step * (solved - old)
            passive[inside[weights[inside] <= 1e-12]] = False
            weights[~passive] = 0
        weights = torch.zeros_like(along).index_copy(0, inside, solved)
    return weights


def jaccard(supports: Sequence[Sequence[int]]) -> float:
    """Return the mean over pairs of sets of the share of their members that both have; 1 for a single set."""
    pairs = [(set(one), set(other)) for one, other in combinations(supports, 2)]
    return sum(len(a & b) / max(1, len(a | b)) for a, b in pairs) / len(pairs) if pairs else 1.0


def equation(weights: Sequence[float], names: Sequence[str]) -> str:
    """Return a sum in words, its largest term first."""
    terms = sorted(zip(weights, names, strict=True), key=lambda term: -term[0])
    return " + ".join(f"{weight:.2f} {name}" for weight, name in terms)

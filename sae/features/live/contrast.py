"""Two sets of examples, and the units that tell them apart: effects beside what chance makes of as many units.

The effect of a unit is the area under the ROC curve (AUC) of its response as a detector of the first set. Among
thousands of units some separate any two sets, so every effect stands beside the largest one that any unit has when
membership is dealt out anew: the max-T method of Westfall and Young (*Resampling-Based Multiple Testing*, 1993), which
holds the probability of even one false finding at `LEVEL`, however the units depend on one another.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation import ranks

LEVEL = 0.05
"""Probability that any unit at all passes the threshold when membership means nothing."""
UNITS_AT_ONCE = 4096
MOST_ITEMS = 4000


@dataclass(frozen=True)
class Contrast:
    """How well each unit tells two sets of items apart.

    Attributes:
        auc: probability that an item of the first set has a larger response than one of the second, ties counting half;
            1/2 for a unit that says nothing, 0 for one that detects the second set.
        difference: standardised mean difference, first minus second, by the pooled standard deviation (Cohen's d); nan
            where nothing varies within the sets.
        fires: share of items of the first and of the second set with a response above 0.
        p: of an effect as large in any unit, if membership meant nothing (see the module).
        threshold: |AUC - 1/2| that a unit has to exceed for p <= `LEVEL`; None where none can, as with few items.
        smallest_p: that any effect could have with this many items and permutations.
        n_permutations: how often membership was dealt out.
        exact: whether these are all ways to deal it out.
    """

    auc: Float64[np.ndarray, " units"]
    difference: Float64[np.ndarray, " units"]
    fires: Float64[np.ndarray, "2 units"]
    p: Float64[np.ndarray, " units"]
    threshold: float | None
    smallest_p: float
    n_permutations: int
    exact: bool

    @property
    def effect(self) -> Float64[np.ndarray, " units"]:
        """AUC - 1/2, from -1/2 to 1/2."""
        return self.auc - 0.5

    @property
    def best(self) -> int:
        """The unit of the largest effect, in whichever direction."""
        return int(np.abs(self.effect).argmax())


def contrast(
    a: Float[Tensor, "items_a units"], b: Float[Tensor, "items_b units_b"], n_permutations: int = 1000, seed: int = 0
) -> Contrast:
    """Compare the responses of units to two sets of items.

    Args:
        a: one response of every unit to every item of the first set, such as the largest activation over a text.
        b: likewise of the second set, to other items.
        n_permutations: how often to deal membership out; all ways are taken where there are no more than this.
        seed: of the dealing.

    Raises:
        EvaluationError: a set is empty, too large, or the sets have different units; or a response is not finite.
    """
    _check(a, b, n_permutations)
    n_a, n_b = len(a), len(b)
    dealt, exact = memberships(n_a, n_b, n_permutations, seed)
    auc, largest = _ranked(torch.cat([a, b]).float().numpy(), n_a, dealt)
    # Chance is compared in units of ranks, where equal effects are equal numbers.
    effect = np.abs(auc - n_a * n_b / 2)
    order = np.sort(largest)
    n_larger = len(order) - np.searchsorted(order, effect, side="left")
    extra = 0 if exact else 1
    p = (n_larger + extra) / (len(order) + extra)
    smallest = max((1 + (n_a == n_b)) / comb(n_a + n_b, n_a), extra / (len(order) + extra))
    allowed = int(LEVEL * (len(order) + extra)) - extra
    # The largest effect that more deals than allowed have; where that is perfect separation nothing can exceed it.
    reached = float(order[-1 - allowed]) / (n_a * n_b) if smallest <= LEVEL else 0.5
    return Contrast(
        auc=auc / (n_a * n_b),
        difference=_standardised(a.double(), b.double()).numpy(),
        fires=torch.stack([one.gt(0).double().mean(0) for one in (a, b)]).numpy(),
        p=p,
        threshold=reached if reached < 0.5 else None,
        smallest_p=smallest,
        n_permutations=len(order),
        exact=exact,
    )


def memberships(n_a: int, n_b: int, n: int, seed: int) -> tuple[Float32[np.ndarray, "items dealt"], bool]:
    """Deal out who is of the first set (1) and who of the second (0), n times, or in all ways if these are fewer."""
    n_items = n_a + n_b
    if comb(n_items, n_a) <= n:
        chosen = np.array(list(combinations(range(n_items), n_a)))
    else:
        chosen = np.random.default_rng(seed).random((n, n_items)).argsort(1)[:, :n_a]
    dealt = np.zeros((len(chosen), n_items), dtype=np.float32)
    np.put_along_axis(dealt, chosen, 1, 1)
    return np.ascontiguousarray(dealt.T), comb(n_items, n_a) <= n


def _ranked(
    x: Float32[np.ndarray, "items units"], n_a: int, dealt: Float32[np.ndarray, "items dealt"]
) -> tuple[Float64[np.ndarray, " units"], Float64[np.ndarray, " dealt"]]:
    """Return each unit's count of pairs that it ranks rightly, and its largest distance from chance in every deal.

    Items are ranked once; what a deal makes of them is a sum of ranks, and all deals together a matrix product. Ranks
    and their sums are multiples of 1/2 below 2 ** 23 for `MOST_ITEMS`, so float32 has them exactly.
    """
    n_items = len(x)
    middle = n_a * (n_items - n_a) / 2
    offset = n_a * (n_a + 1) / 2 + middle
    pairs, largest = [], np.zeros(dealt.shape[1], dtype=np.float64)
    for part in _parts(x):
        rank = _ranks(part)
        pairs.append(rank[:, :n_a].sum(1, dtype=np.float64) - n_a * (n_a + 1) / 2)
        # A unit that is the same on all items is where chance is, whatever is dealt.
        varying = rank[rank.min(1) < rank.max(1)]
        if len(varying):
            away = torch.from_numpy(varying) @ torch.from_numpy(dealt)
            away -= offset
            highest, lowest = away.amax(0), away.amin(0)
            np.maximum(largest, torch.maximum(highest, -lowest).double().numpy(), out=largest)
    return np.concatenate(pairs), largest


def _parts(x: Float32[np.ndarray, "items units"]) -> Iterator[Float32[np.ndarray, "block items"]]:
    for start in range(0, x.shape[1], UNITS_AT_ONCE):
        yield np.ascontiguousarray(x[:, start : start + UNITS_AT_ONCE].T)


def _ranks(x: Float32[np.ndarray, "units items"]) -> Float32[np.ndarray, "units items"]:
    """Rank each unit's items from 1, equal ones sharing their mean rank."""
    ordered, where = ranks.stable_sort(ranks.float_keys(x))
    offsets = np.arange(len(x) + 1) * x.shape[1]
    found = np.empty_like(x)
    np.put_along_axis(found, where, ranks.ranks(ordered.ravel(), offsets).reshape(x.shape).astype(np.float32), 1)
    return found


def _standardised(a: Float64[Tensor, "_ units"], b: Float64[Tensor, "_ units"]) -> Float64[Tensor, " units"]:
    squares = sum(((one - one.mean(0)) ** 2).sum(0) for one in (a, b))
    deviation = (squares / max(len(a) + len(b) - 2, 1)) ** 0.5
    return torch.where(deviation > 0, (a.mean(0) - b.mean(0)) / deviation, torch.nan)


def _check(a: Tensor, b: Tensor, n_permutations: int) -> None:
    if a.shape[1] != b.shape[1]:
        raise EvaluationError(f"contrast: {a.shape[1]} units in the first set, {b.shape[1]} in the second.")
    if not len(a) or not len(b) or len(a) + len(b) > MOST_ITEMS:
        raise EvaluationError(
            f"contrast: {len(a)} and {len(b)} items; each set needs one, and {MOST_ITEMS} are the most altogether."
        )
    if n_permutations < 1:
        raise EvaluationError(f"contrast: n_permutations must be at least 1, got {n_permutations}.")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise EvaluationError("contrast: a response is NaN or infinite.")

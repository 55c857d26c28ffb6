"""What removing each concept's part does to its score and to the others', to degrees that are given or equally dear."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae import log
from sae.lab.change.interventions import Change
from sae.lab.change.panel import Panel, panel_codes
from sae.lab.change.rivals import Candidates

COST = "accuracy others lose"
OFF_TARGET_QUANTILE, TIMES = 0.95, 2.0
"""A removal is selective if the concept's own drop is at least twice the 95th percentile of all others' drops."""
NEAR, STEPS = 0.9, 4
"""Shares of equal cost are looked for until one costs at least nine tenths of it, and at most four are tried."""


@dataclass(frozen=True)
class Removal:
    """What removing the part of each concept did, by one method and to one degree.

    Attributes:
        method, share: what was removed, and how much of it.
        own: by how much each concept's score falls when its own part is removed; nan where it has no part.
        others: the 95th percentile of the falls of the other concepts' scores.
        own_accuracy: as `own`, of accuracy.
        cost: the accuracy that the other concepts lose on average; one that gains counts as losing nothing, so that
            gains of some do not hide what is done to others.
    """

    method: str
    share: float
    own: Float[Tensor, " concepts"]
    others: Float[Tensor, " concepts"]
    own_accuracy: Float[Tensor, " concepts"]
    cost: Float[Tensor, " concepts"]

    @property
    def selective(self) -> Bool[Tensor, " concepts"]:
        """Whether a concept falls, and at least twice as much as all but a twentieth of the others."""
        return (self.own > 0) & (self.own >= TIMES * self.others)

    def row(self) -> dict[str, Any]:
        """Return means over concepts, of which those without a part fall by nothing and are not selective."""
        mean = lambda values: float(values.nan_to_num(0).mean())  # noqa: E731
        return {
            "method": self.method,
            "share removed": self.share,
            "selective": mean(self.selective.double()),
            "own fall": mean(self.own),
            "others' 95th percentile": mean(self.others),
            "own fall of accuracy": mean(self.own_accuracy),
            COST: mean(self.cost),
        }


def removals(
    panel: Panel,
    candidates: Candidates,
    method: str,
    shares: Sequence[float],
    related: Bool[Tensor, "concepts concepts"] | None = None,
) -> list[Removal]:
    """Remove the part of every concept of a panel by one method, to several degrees.

    Args:
        panel: held-out answers.
        candidates: parts chosen on the other half.
        method: one of `METHODS`.
        shares: degrees.
        related: concepts that are not "others" of each; itself alone if not given.
    """
    n = len(panel.names)
    codes = panel_codes(panel, candidates.bench.dictionary)
    found = torch.full((len(shares), 4, n), torch.nan, dtype=torch.float64)
    related = torch.eye(n, dtype=torch.bool) if related is None else related
    present = panel.member.any(0)
    for concept, name in enumerate(log.track(panel.names, f"removing: {method}")):
        if not present[concept] or not candidates.can_choose(method, name):
            continue
        parts = candidates.parts(method, name, codes)
        for number, share in enumerate(shares):
            drop = panel.by_concept(panel.clean - panel.changed(parts, Change("remove", share)), without=concept)
            off = drop[~related[concept] & drop.isfinite().all(1)]
            if len(off):
                others = off[:, 0].quantile(OFF_TARGET_QUANTILE)
                values = (drop[concept, 0], others, drop[concept, 1], off[:, 1].clamp(min=0).mean())
                found[number, :, concept] = torch.stack(values)
    return [Removal(method, share, *values) for share, values in zip(shares, found, strict=True)]


def at_cost(measure: Callable[[float], Removal], tried: Sequence[Removal], cost: float) -> Removal:
    """Return the removal of the largest share measured that costs the other concepts no more accuracy than `cost`.

    Looked for between the largest share tried that is cheap enough and the next one, which is too dear; if the largest
    of all is cheap enough it is taken, and may cost less. Whatever is returned was measured, so its cost is known. If
    every share is too dear nothing is removed.

    Args:
        measure: removes a share.
        tried: shares that were removed already.
        cost: mean accuracy that others may lose.
    """
    known = {one.share: one for one in tried}
    costs = {0.0: 0.0} | {share: one.row()[COST] for share, one in known.items()}
    for _ in range(STEPS):
        low = max(share for share, of in costs.items() if of <= cost)
        dearer = sorted(share for share in costs if share > low)
        if not dearer or costs[low] >= NEAR * cost > 0:
            break
        share = _guess(costs, low, dearer, cost)
        known[share] = measure(share)
        costs[share] = known[share].row()[COST]
    low = max(share for share, of in costs.items() if of <= cost)
    return known[low] if low in known else measure(low)


def _guess(costs: Mapping[float, float], low: float, dearer: Sequence[float], cost: float) -> float:
    """Guess which share above `low`, and below the first of those too dear, costs a little less than `cost`.

    By the power law through these two. Where `low` costs nothing it is the one through the first two that are too
    dear, but no steeper than a line: concepts that waver make small removals dearer. If that leads out, the middle.
    """
    high, aim, power = dearer[0], (1 + NEAR) / 2 * cost, 1.0
    if costs[low] > 0:
        power = math.log(costs[high] / costs[low]) / math.log(high / low)
    elif len(dearer) > 1:
        power = min(max(math.log(costs[dearer[1]] / costs[high]) / math.log(dearer[1] / high), 0.5), 1.0)
    guess = high * (aim / costs[high]) ** (1 / power)
    return guess if low < guess < high else (low + high) / 2

"""Definitions of a fair judgement, side by side; where base rates differ they cannot all hold at once.

Kleinberg, Mullainathan and Raghavan 2017 (*Inherent Trade-Offs in the Fair Determination of Risk Scores*); Chouldechova
2017 (*Fair prediction with disparate impact*). Every figure is that of the group with a value less that of the others.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DEFINITIONS = {
    "base rate": "how much more often the judgement is true (nothing a judge can change)",
    "demographic parity": "how much more often it is made",
    "equal opportunity": "how much more often it is made where it is true",
    "equalised odds": "the larger gap, of those where it is true and where it is not",
    "predictive parity": "how much more often it is true where it is made",
    "calibration": "how much more its probability exceeds how often it is true",
}
DRAWS = 1000


@dataclass(frozen=True)
class Gap:
    """A difference between two groups with its 95 % interval; nan where a group has nothing to count."""

    value: float
    low: float
    high: float

    @property
    def holds(self) -> bool | None:
        """Whether the interval holds 0, so the definition cannot be said to be violated; None where nothing is known.

        An interval of one point is that of too few cases to vary.
        """
        if self.value != self.value:
            return None
        return self.low <= 0 <= self.high


def gaps(
    truth: Bool[Tensor, " items"],
    made: Bool[Tensor, " items"],
    probability: Float[Tensor, " items"],
    group: Bool[Tensor, " items"],
    seed: int,
) -> dict[str, Gap]:
    """Return every definition's gap, by name.

    Args:
        truth: where the judgement is true.
        made: where it is made.
        probability: that it is given.
        group: items with the value; all others are the other group.
        seed: of the bootstrap over items, 1,000 draws within each group.
    """
    columns = torch.stack([truth.double(), made.double(), probability.double()], 1)
    one, other = columns[group], columns[~group]
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for _ in range(DRAWS):
        drawn = [part[torch.randint(len(part), (len(part),), generator=generator)] for part in (one, other)]
        draws.append(_differences(*drawn))
    values, spread = _differences(one, other), torch.stack(draws)
    found = {}
    for number, name in enumerate(DEFINITIONS):
        column = spread[:, number]
        column = column[~column.isnan()]
        ends = column.quantile(torch.tensor([0.025, 0.975]).double()) if len(column) else torch.full((2,), torch.nan)
        found[name] = Gap(float(values[number]), *ends.tolist())
    return found


def _differences(one: Float[Tensor, "n 3"], other: Float[Tensor, "m 3"]) -> Float[Tensor, " definitions"]:
    base, made, hit, false, precise, over = _rates(one) - _rates(other)
    odds = hit if false.isnan() or hit.abs() >= false.abs() else false
    return torch.stack([base, made, hit, odds, precise, over])


def _rates(columns: Float[Tensor, "n 3"]) -> Float[Tensor, " 6"]:
    """Return base rate, rate made, true positives' and false positives' rates, precision, and mean excess."""
    truth, made, probability = columns.T
    return torch.stack(
        [
            truth.mean(),
            made.mean(),
            made[truth > 0].mean(),
            made[truth == 0].mean(),
            truth[made > 0].mean(),
            probability.mean() - truth.mean(),
        ]
    )

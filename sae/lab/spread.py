"""Means over things with 95 % intervals that resample them, for what is no metric of a report."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.metric import mean_draws

LEVELS = (0.025, 0.975)


class Spread(NamedTuple):
    """A mean, and its 95 % percentile interval over bootstrap resamples of the things; nan where there are none."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Float[Tensor, " things"], seed: int = 0) -> "Spread":
        """Take the mean of values that are known; those that are nan are left out."""
        known = values[values.isfinite()].double()
        if not len(known):
            return cls(*(float("nan"),) * 3)
        low, high = mean_draws(known, seed).quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
        return cls(float(known.mean()), low, high)

    def apart_from(self, value: float) -> bool:
        """Whether the interval leaves a value out."""
        return not self.low <= value <= self.high

    def figures(self, name: str) -> dict[str, float]:
        """Return the three numbers as figures of a finding."""
        return {name: self.mean, f"{name}, low": self.low, f"{name}, high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rank_correlation(one: Float[Tensor, " things"], other: Float[Tensor, " things"], seed: int = 0) -> Spread:
    """Return Spearman's correlation of two sets of numbers, ties sharing their mean rank, with its bootstrap interval.

    nan where either never varies.
    """
    from scipy.stats import rankdata

    one, other = (torch.from_numpy(rankdata(values.double().numpy())) for values in (one, other))
    moments = torch.stack([one, other, one * one, other * other, one * other], 1)

    def correlation(means: Float[Tensor, "draws 5"]) -> Float[Tensor, " draws"]:
        a, b, aa, bb, ab = means.T
        return (ab - a * b) / ((aa - a * a) * (bb - b * b)).clamp(min=0).sqrt()

    drawn = correlation(torch.stack([mean_draws(column, seed) for column in moments.T], 1))
    low, high = drawn.nanquantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return Spread(float(correlation(moments.mean(0, keepdim=True))), low, high)

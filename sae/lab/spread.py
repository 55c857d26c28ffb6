"""Means over things with 95 % intervals that resample them, for what is no metric of a report."""

from collections.abc import Mapping
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

    @property
    def said(self) -> str:
        """What a difference says of the first of the two: "more than", "less than" or "not distinguishable from"."""
        return "more than" if self.low > 0 else "less than" if self.high < 0 else "not distinguishable from"

    def figures(self, name: str) -> dict[str, float]:
        """Return the three numbers as figures of a finding."""
        return {name: self.mean, f"{name}, low": self.low, f"{name}, high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Drawn(NamedTuple):
    """A number with its bootstrap draws; those of two numbers over the same things, by the same seed, are paired."""

    value: float
    draws: Float[Tensor, " draws"]

    @property
    def spread(self) -> Spread:
        """The number with its 95 % interval."""
        low, high = self.draws.nanquantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
        return Spread(self.value, low, high)

    def minus(self, other: "Drawn") -> Spread:
        """Return the difference with its 95 % interval, draw by draw."""
        return Drawn(self.value - other.value, self.draws - other.draws).spread


def rank_correlation(one: Float[Tensor, " things"], other: Float[Tensor, " things"], seed: int = 0) -> Drawn:
    """Return Spearman's correlation of two sets of numbers, ties sharing their mean rank, over bootstrap resamples.

    nan where either never varies.
    """
    from scipy.stats import rankdata

    one, other = (torch.from_numpy(rankdata(values.double().numpy())) for values in (one, other))
    moments = torch.stack([one, other, one * one, other * other, one * other], 1)

    def correlation(means: Float[Tensor, "draws 5"]) -> Float[Tensor, " draws"]:
        a, b, aa, bb, ab = means.T
        return (ab - a * b) / ((aa - a * a) * (bb - b * b)).clamp(min=0).sqrt()

    drawn = correlation(torch.stack([mean_draws(column, seed) for column in moments.T], 1))
    return Drawn(float(correlation(moments.mean(0, keepdim=True))), drawn)


def joined(said: Mapping[str, str]) -> str:
    """Join what is said beside controls: {"neurons": "more than", ...} is "more than neurons and ..., less than ...".

    Controls of which the same is said come together.
    """
    words = dict.fromkeys(said.values())
    parts = [f"{word} {' and '.join(name for name, of in said.items() if of == word)}" for word in words]
    return ", ".join(parts)

"""The curves of one kind of units over one factor, beside what dealt levels give."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.evaluation.metric import MIN_ITEMS
from sae.lab.spread import LEVELS, Spread
from sae.lab.tuning.curves import Curves, scrambled
from sae.lab.tuning.sweeps import Sweep

CLASS_DEALS = 199
"""Deals among classes, which are few: all units share a deal, so a handful would say little."""


@dataclass(frozen=True)
class Tuned:
    """The curves of one kind of units over one factor.

    Attributes:
        curves: of all units.
        chance: what is explained with dealt levels, by unit, for every deal.
        step: step-likeness of every unit.
    """

    curves: Curves
    chance: Float[Tensor, "deals units"]
    step: Float[Tensor, " units"]

    @classmethod
    def of(cls, values: Float[Tensor, "items units"], sweep: Sweep, n_scrambled: int, seed: int) -> "Tuned":
        """Average the answers of units to the items of a sweep."""
        values, level, thing, match = sweep.placed(values)
        curves = Curves.of(values, level, thing, match)
        # With one thing in both halves levels are dealt within each half by what they are; the order is as good.
        n_deals = n_scrambled if sweep.owner is None else max(n_scrambled, CLASS_DEALS)
        deals = [scrambled(level, thing, seed + number) for number in range(n_deals)]
        chance = torch.stack([Curves.of(values, dealt, thing, match).explained for dealt in deals])
        return cls(curves, chance, curves.step_likeness(sweep.circular))

    @property
    def bar(self) -> float:
        """What one unit in a thousand reaches by chance."""
        return max(float(self.chance.flatten().quantile(0.999)), 0.0)

    @property
    def tuned(self) -> Bool[Tensor, " units"]:
        """Units of which the factor explains more than that."""
        return self.curves.explained > self.bar

    def figures(self, who: str, seed: int) -> dict[str, float]:
        tuned = self.tuned
        found = {
            f"{who}, tuned": float(tuned.double().mean()),
            f"{who}, tuned by chance": float((self.chance > self.bar).double().mean()),
            **Spread.of(self.curves.explained.clamp(min=0), seed).figures(f"{who}, explained"),
            f"{who}, explained of all variance": float(self.curves.of_all.clamp(min=0).mean()),
            f"{who}, most explained": float(self.curves.explained.max()),
            **self._by_chance(f"{who}, explained by chance"),
        }
        if len(self.chance) >= CLASS_DEALS:
            p = ((self.chance >= self.curves.explained).sum(0) + 1) / (len(self.chance) + 1)
            found[f"{who}, beyond 95 % of its deals"] = float((p <= 0.05).double().mean())
        if int(tuned.sum()) >= MIN_ITEMS:
            found |= Spread.of((self.step[tuned] > 0).double(), seed).figures(f"{who}, step-like")
            found[f"{who}, width"] = float(self.curves.width[tuned].median())
        return found

    def _by_chance(self, name: str) -> dict[str, float]:
        """Return what is explained of the mean unit with dealt levels, and within what 95 % of the deals lie."""
        means = self.chance.clamp(min=0).mean(1)
        low, high = means.quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
        return {name: float(means.mean()), f"{name}, low": low, f"{name}, high": high}

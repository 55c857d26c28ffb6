"""The labels of items drawn from each level of a unit, as a table with intervals and with what chance gives."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from sae.lab.levels import mixes


@dataclass(frozen=True)
class Levels:
    """The labels of items drawn at each level of a unit.

    Attributes:
        edges: of the levels.
        deviation: standard deviation of the values over all items.
        counts: drawn items by level and label.
        mass: share of all items that each level has.
        label: number of the label in question.
        base: share of all items that have it.
        n_items: how many items there are.
    """

    edges: Float[np.ndarray, " edges"]
    deviation: float
    counts: mixes.Counts
    mass: Float[np.ndarray, " levels"]
    label: int
    base: float
    n_items: int

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, " items"],
        labels: Int[np.ndarray, " items"],
        n_labels: int,
        label: int,
        n_levels: int = 20,
        n_each: int = 50,
        seed: int = 0,
    ) -> "Levels":
        """Draw from each level of a unit's values and count labels.

        Raises:
            EvaluationError: the unit answers the same to everything.
        """
        edges = mixes.level_edges(values, n_levels)
        level = mixes.levels_of(values, edges)
        chosen = mixes.draw(level, n_levels, n_each, seed)
        counts = mixes.tally(level[chosen], labels[chosen], n_levels, n_labels)
        mass = np.bincount(level, minlength=n_levels) / len(level)
        return cls(edges, float(values.std()), counts, mass, label, float((labels == label).mean()), len(level))

    @property
    def band(self) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
        """Shares within which labels that are dealt at random stay in all levels, in 95 of 100 deals."""
        return mixes.chance_band(self.counts.sum(1), round(self.base * self.n_items), self.n_items)

    @property
    def outside(self) -> Bool[np.ndarray, " levels"]:
        """Levels whose share of the label is outside that band."""
        (low, high), share = self.band, mixes.shares(self.counts)[:, self.label]
        return (share < low) | (share > high)

    def rows(self, names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return a table with one level per line."""
        share, drawn = mixes.shares(self.counts), self.counts.sum(1)
        low, high = mixes.intervals(self.counts[:, self.label], drawn)
        chance_low, chance_high = self.band
        recall = mixes.recalls(share, self.mass)[:, self.label]
        density = mixes.densities(share, self.mass, self.edges)[:, self.label]
        return [
            {
                "from": round(float(self.edges[i]), 4),
                "to": round(float(self.edges[i + 1]), 4),
                "to_deviations": round(float(self.edges[i + 1]) / self.deviation, 2),
                "items": round(self.mass[i] * self.n_items),
                "drawn": int(drawn[i]),
                "with_label": int(self.counts[i, self.label]),
                "precision": _number(share[i, self.label]),
                "low": _number(low[i]),
                "high": _number(high[i]),
                "dealt_low": _number(chance_low[i]),
                "dealt_high": _number(chance_high[i]),
                "recall_from_here": _number(recall[i]),
                "density": _number(density[i]),
                "commonest": names[int(self.counts[i].argmax())] if drawn[i] else "",
            }
            for i in range(len(drawn))
        ]


def _number(value: float) -> float | str:
    return "" if np.isnan(value) else round(float(value), 4)

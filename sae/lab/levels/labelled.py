"""What raters said of items drawn from levels of a unit, as labels by level, weighted by how many items each has."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from sae.features.judging.agreement import of_shares
from sae.features.judging.labelling import Labelling
from sae.lab.levels import mixes
from sae.lab.levels.table import Levels

STRONG = 0.5
"""Share of its maximum from which on a unit counts as strongly active."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Labelled:
    """The items that somebody has labelled.

    Attributes:
        item: their numbers in the sample.
        category: what each was called by most raters; of a rater the first label of an item counts, ties are drawn.
        level: of each.
        values: of the unit on each.
        levels: labels by level, the first category in question.
    """

    item: Int[np.ndarray, " labelled"]
    category: Int[np.ndarray, " labelled"]
    level: Int[np.ndarray, " labelled"]
    values: Float[np.ndarray, " labelled"]
    levels: Levels

    @classmethod
    def of(
        cls,
        labelling: Labelling,
        values: Float[np.ndarray, " items"],
        seed: int = 0,
        among: Bool[np.ndarray, " items"] | None = None,
    ) -> "Labelled":
        """Join what all raters said.

        Args:
            labelling: with its key.
            values: of the unit, on all items of the sample.
            seed: of the draw between categories that as many raters chose.
            among: the items that could be drawn; all of them if not given.
        """
        among = np.ones(len(values), dtype=bool) if among is None else among
        settings, names = labelling.key["settings"], labelling.categories
        agreed = votes(labelling.key["item"], labelling.said(), seed)
        item = np.array(sorted(agreed), dtype=np.int64)
        category = np.array([agreed[one] for one in item.tolist()], dtype=np.int64)
        n, n_items = settings["n_levels"], int(among.sum())
        edges, level = mixes.levels_among(values, among, n)
        counts = mixes.tally(level[item], category, n, len(names))
        mass = np.bincount(level[among], minlength=n) / n_items
        base = _share(counts, mass, np.ones(n, dtype=bool)).value
        levels = Levels(edges, float(values[among].std()), counts, mass, 0, base, n_items)
        return cls(item, category, level[item], values[item], levels)

    @cached_property
    def weight(self) -> Float[np.ndarray, " labelled"]:
        """How many items of the sample each stands for, as a share of all."""
        drawn = self.levels.counts.sum(1)
        return self.levels.mass[self.level] / drawn[self.level]

    @property
    def base(self) -> Share:
        """Share of all items of the sample that the first category has, judged by those that were labelled."""
        return _share(self.levels.counts, self.levels.mass, np.ones(len(self.levels.mass), dtype=bool))

    @property
    def strong(self) -> Share | None:
        """The same of the items on levels that lie from half the unit's maximum on; None if nobody labelled any."""
        edges = self.levels.edges
        there = edges[:-1] >= STRONG * edges[-1] - 1e-9 * abs(edges[-1])
        if edges[-1] <= 0 or not self.levels.counts[there].sum():
            return None
        return _share(self.levels.counts, self.levels.mass, there)

    def auc(self, values: Float[np.ndarray, "labelled units"]) -> Float[np.ndarray, " units"]:
        """Return the chance that an item of the first category has a larger value than another one, ties counting half.

        Items count by their weight, so this is about the sample, not about the equal draws; nan if all labels agree.
        """
        has = self.category == 0
        pairs = self.weight[has][:, None] * self.weight[~has][None]
        if not pairs.size:
            return np.full(values.shape[1], np.nan)
        wins = [np.sign(one[has][:, None] - one[~has][None]) for one in values.T]
        return np.array([0.5 + 0.5 * float((pairs * one).sum() / pairs.sum()) for one in wins])


def votes(item: list[int], said: Mapping[str, Mapping[int, int]], seed: int = 0) -> dict[int, int]:
    """Return the category that most raters gave to each item, by number of the item.

    Args:
        item: shown in each slot.
        said: category of each slot, by rater.
        seed: of the draw between categories with as many votes.
    """
    cast: dict[int, Counter[int]] = {}
    for answers in said.values():
        first: dict[int, int] = {}
        for slot in sorted(answers):
            first.setdefault(item[slot], answers[slot])
        for one, category in first.items():
            cast.setdefault(one, Counter())[category] += 1
    rng, agreed = np.random.default_rng(seed), {}
    for one in sorted(cast):
        most = max(cast[one].values())
        agreed[one] = int(rng.choice(sorted(category for category, n in cast[one].items() if n == most)))
    return agreed


def _share(counts: mixes.Counts, mass: Float[np.ndarray, " levels"], there: Bool[np.ndarray, " levels"]) -> Share:
    """Return the share of the first category on some levels, each counting by its mass; those not drawn from do not."""
    there = there & (counts.sum(1) > 0)
    weights = mass[there] / mass[there].sum()
    shares = [(float(hits), int(n)) for hits, n in zip(counts[there, 0], counts[there].sum(1), strict=True)]
    value = sum(weight * hits / n for weight, (hits, n) in zip(weights, shares, strict=True))
    return Share(float(value), *of_shares(shares, weights.tolist()))

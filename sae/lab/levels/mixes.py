"""Mixes of labels at levels of activation: what is drawn, shares with intervals, densities, divergence and chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from sae.errors import EvaluationError
from sae.features.judging.agreement import wilson

Counts = Int[np.ndarray, "levels labels"]


def level_edges(values: Float[np.ndarray, " items"], n_levels: int) -> Float[np.ndarray, " edges"]:
    """Cut the range of values, negative side included, into levels of equal width.

    Raises:
        EvaluationError: all values are equal.
    """
    low, high = float(values.min()), float(values.max())
    if not low < high:
        raise EvaluationError(f"levels: the unit answers {low:.4g} to all {len(values)} items; there are no levels.")
    return np.linspace(low, high, n_levels + 1)


def levels_of(values: Float[np.ndarray, " items"], edges: Float[np.ndarray, " edges"]) -> Int[np.ndarray, " items"]:
    """Return the level of each value; a value on an inner edge belongs to the level above, the maximum to the last."""
    return np.searchsorted(edges[1:-1], values, side="right")


def levels_among(
    values: Float[np.ndarray, " items"], among: Bool[np.ndarray, " items"], n_levels: int
) -> tuple[Float[np.ndarray, " edges"], Int[np.ndarray, " items"]]:
    """Cut the range of some items' values; return the edges, and the level of each of them, -1 of all others."""
    edges = level_edges(values[among], n_levels)
    return edges, np.where(among, levels_of(values, edges), -1)


def draw(level: Int[np.ndarray, " items"], n_levels: int, n_each: int, seed: int) -> Int[np.ndarray, " drawn"]:
    """Draw at most `n_each` items of every level at random, without putting any back; return their numbers in order."""
    order = np.random.default_rng(seed).permutation(len(level))
    chosen = [order[level[order] == number][:n_each] for number in range(n_levels)]
    return np.sort(np.concatenate(chosen))


def tally(level: Int[np.ndarray, " items"], label: Int[np.ndarray, " items"], n_levels: int, n_labels: int) -> Counts:
    """Count the items of every level by label."""
    flat = np.bincount(level * n_labels + label, minlength=n_levels * n_labels)
    return flat.reshape(n_levels, n_labels)


def shares(counts: Counts) -> Float[np.ndarray, "levels labels"]:
    """Return P(label | level); nan where a level has no items."""
    totals = counts.sum(1, keepdims=True)
    return np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)


def intervals(
    hits: Int[np.ndarray, " levels"], n: Int[np.ndarray, " levels"]
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """Return the ends of the 95 % Wilson interval of every share; nan where nothing was drawn."""
    ends = [wilson(int(hit), int(of)) if of else (np.nan, np.nan) for hit, of in zip(hits, n, strict=True)]
    low, high = np.array(ends).T
    return low, high


def chance_band(
    n: Int[np.ndarray, " levels"], n_labelled: int, n_items: int
) -> tuple[Float[np.ndarray, " levels"], Float[np.ndarray, " levels"]]:
    """Return the shares between which labels that are dealt at random stay, in all levels at once in 95 of 100 deals.

    Of n items drawn from `n_items`, `n_labelled` of which have the label, the number with it is hypergeometric, so
    nothing is simulated. Levels share the 5 % (Bonferroni). nan where nothing was drawn.
    """
    from scipy.stats import hypergeom

    tail = 0.05 / (2 * max(int((n > 0).sum()), 1))
    low, high = (np.asarray(hypergeom.ppf(at, n_items, n_labelled, n), dtype=float) for at in (tail, 1 - tail))
    there = np.where(n > 0, n, np.nan)
    return low / there, high / there


def joint(mix: Float[np.ndarray, "levels labels"], mass: Float[np.ndarray, " levels"]) -> Float[np.ndarray, "*shape"]:
    """Return P(level, label) from the mix of each level and its share of all items: what undoes the equal draws."""
    return np.nan_to_num(mix) * mass[:, None]


def recalls(mix: Float[np.ndarray, "levels labels"], mass: Float[np.ndarray, " levels"]) -> Float[np.ndarray, "*shape"]:
    """Return, for every level and label, the share of the label's items that lie at this level or above."""
    above = joint(mix, mass)[::-1].cumsum(0)[::-1]
    return np.divide(above, above[:1], out=np.full(above.shape, np.nan), where=above[:1] > 0)


def densities(
    mix: Float[np.ndarray, "levels labels"], mass: Float[np.ndarray, " levels"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, "levels labels"]:
    """Return p(activation | label) at each level, per unit of activation; each label's integrates to 1."""
    both = joint(mix, mass)
    of_label = both.sum(0, keepdims=True)
    within = np.divide(both, of_label, out=np.full(both.shape, np.nan), where=of_label > 0)
    return within / np.diff(edges)[:, None]


def jensen_shannon(p: Float[np.ndarray, "*n labels"], q: Float[np.ndarray, "*n labels"]) -> Float[np.ndarray, "*n"]:
    """Return the Jensen-Shannon divergence of counts or shares, in bits (Lin 1991).

    It is 0 where they are alike, and 1 where they have no label in common.
    """
    p, q = (one / one.sum(-1, keepdims=True) for one in (p, q))
    return np.asarray(np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0))


def entropy(p: Float[np.ndarray, "*n labels"]) -> Float[np.ndarray, "*n"]:
    """Return the entropy of shares, in bits."""
    return np.asarray(-(p * np.log2(np.where(p > 0, p, 1))).sum(-1))


@dataclass(frozen=True)
class Change:
    """How much the mix of labels differs between two bands, and how much it does when labels are dealt at random.

    Attributes:
        divergence: Jensen-Shannon, in bits. From few items it is far from 0 by chance alone.
        dealt: the same with the labels of both bands dealt out among their items, many times.
        n: items of the medium band and of the strong one.
    """

    divergence: float
    dealt: Float[np.ndarray, " deals"]
    n: tuple[int, int]

    @classmethod
    def of(
        cls, medium: Int[np.ndarray, " labels"], strong: Int[np.ndarray, " labels"], n_deals: int, seed: int | list[int]
    ) -> "Change":
        """Compare the counts of two bands; dealing labels out is a draw from a multivariate hypergeometric."""
        there = (medium + strong) > 0
        medium, strong = medium[there], strong[there]
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_hypergeometric(medium + strong, int(strong.sum()), size=n_deals, method="count")
        dealt = jensen_shannon((medium + strong - drawn).astype(float), drawn.astype(float))
        found = jensen_shannon(medium.astype(float), strong.astype(float))
        return cls(float(found), dealt, (int(medium.sum()), int(strong.sum())))

    @property
    def p(self) -> float:
        """Share of deals, the true one among them, that diverge as much; rounding apart."""
        return float(1 + (self.dealt >= self.divergence - 1e-9).sum()) / (1 + len(self.dealt))

    @property
    def excess(self) -> float:
        """Divergence beyond that of the mean deal, in bits."""
        return self.divergence - float(self.dealt.mean())

    def standard(self, divergence: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return divergences in standard deviations of the deals from their mean; 0 where all deals are alike."""
        spread = float(self.dealt.std())
        if spread <= 1e-9:
            return np.zeros_like(divergence)
        return np.asarray((divergence - self.dealt.mean()) / spread)


def band(
    values: Float[np.ndarray, " items"],
    maximum: float,
    limits: tuple[float, float],
    example: Int[np.ndarray, " items"],
    seed: int | list[int],
) -> Int[np.ndarray, " chosen"]:
    """Return items between two shares of a maximum, one of each example at random: tokens of a text are no two draws.

    The lower limit is within, the upper one is not unless it is the maximum. There are none where it is not positive.
    """
    if maximum <= 0:
        return np.zeros(0, dtype=np.int64)
    low, high = (limit * maximum for limit in limits)
    inside: Bool[np.ndarray, " items"] = (values >= low) & ((values < high) if limits[1] < 1 else (values <= high))
    found = np.random.default_rng(seed).permutation(np.flatnonzero(inside))
    return found[np.unique(example[found], return_index=True)[1]]


def significant(changes: list[Change | None], level: float = 0.05) -> tuple[float, list[bool]]:
    """Return which changes of many are beyond chance, the chance of any false one at most `level`.

    A change counts if its standard score is above the `1 - level` quantile of the largest over all units per deal
    (Westfall and Young 1993, single step). Deals are independent between units, so dependence makes it stricter.

    Returns:
        That quantile, and one answer per change; no for those that could not be tested.
    """
    tested = [one for one in changes if one is not None]
    if not tested:
        return float("inf"), [False] * len(changes)
    largest = np.max([one.standard(one.dealt) for one in tested], axis=0)
    limit = float(np.quantile(largest, 1 - level, method="higher"))
    scores = [None if one is None else float(one.standard(np.array(one.divergence))) for one in changes]
    return limit, [score is not None and score > limit for score in scores]

"""Examples that a card does not show, to test its explanations on: of firing, and as many of silence."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from sae.features.building.contexts import Ref
from sae.features.building.evidence import Origins, Shown
from sae.features.building.firings import Firings
from sae.features.building.sampling import SHIFT, bits, one_of_each, priorities, split

FEWEST = 4
"""Of either kind; with fewer nothing can be told, and a card has none."""
REACH = 16
"""Tokens kept on either side of the one in question."""
POOL = 256
"""Rows, spread evenly, among which a latent's silent ones are looked for."""
SEED = 0xB11D
"""Keeps the draw apart from that of the examples which cards show."""
NAMES = ("held_firing", "held_near", "held_random")


class HeldOut:
    """Draws held-out examples, by seed; each is another example of the store, and none of those that the card shows.

    Half of the silent ones are near misses, where they are known. A latent is silent in all of the context that is
    shown. Where no such text is left, for it fires on almost all, it is silent at the token in question alone; such
    images there are none.

    Args:
        origins: of the rows.
        n_rows: how many of them were counted, from the first.
        n: examples of either kind.
        reach: rows on either side that are shown; None for the whole example.
        seed: of the draw.
        few_examples: draw from the same examples for all latents, as far as that goes.
    """

    def __init__(
        self, origins: Origins, n_rows: int, n: int, reach: int | None, seed: int = 0, few_examples: bool = False
    ) -> None:
        self.origins, self.n, self.reach = origins, n, reach
        self.seed, self.few_examples = seed ^ SEED, few_examples
        stretches = split(np.array([[0, n_rows]], dtype=np.int64), min(POOL, n_rows))
        rows = one_of_each(stretches, priorities(np.arange(n_rows), self.seed))[0]
        self.pool = rows[np.unique(origins.example[rows], return_index=True)[1]]

    def of(self, firings: Firings, shown: Mapping[str, Shown], near: Shown | None) -> dict[str, Shown]:
        """Choose for each latent; the names are `NAMES`.

        Args:
            firings: of a range of latents.
            shown: what their cards show.
            near: further near misses, nearest first.
        """
        n_latents = len(firings.latents)
        taken = self._keys(np.concatenate([one.rows for one in shown.values()], axis=1))
        fires = self._firing(firings, taken)
        taken = np.union1d(taken, self._keys(fires.rows))
        nearly = np.full((n_latents, 0), -1, dtype=np.int64)
        if near is not None:
            nearly = self._silent(firings, near.rows, taken, self.n // 2)
            taken = np.union1d(taken, self._keys(nearly))
        pool = np.tile(self.pool, (n_latents, 1))
        order = np.argsort(self._priorities(firings, pool), axis=1)
        drawn = self._silent(firings, np.take_along_axis(pool, order, axis=1), taken, self.n)
        # Those drawn at random fill up what near misses leave free.
        free = self.n - (nearly >= 0).sum(1, keepdims=True)
        drawn = np.where((drawn >= 0).cumsum(1) <= free, drawn, -1)
        return dict(zip(NAMES, (fires, *(Shown(rows, np.zeros(rows.shape)) for rows in (nearly, drawn))), strict=True))

    def _firing(self, firings: Firings, taken: Int64[np.ndarray, " taken"]) -> Shown:
        """Draw one firing of every equal share of a latent's free examples, weakest share first."""
        example = self.origins.example[firings.rows]
        priority = self._priorities(firings, firings.rows, firings.latent)
        if not len(example):
            return Shown.entries(firings, np.full((len(firings.latents), self.n), -1, dtype=np.int64))
        new = (np.diff(example) != 0) | (np.diff(firings.latent) != 0)
        ends = np.concatenate([[0], np.flatnonzero(new) + 1, [len(example)]])
        chosen = one_of_each(ends[None], priorities(firings.places + self._first(firings), self.seed))[0]
        chosen = chosen[~_among(self._key(firings.latent[chosen], example[chosen]), taken)]
        chosen = chosen[np.argsort((firings.latent[chosen] << SHIFT) | bits(firings.values[chosen]), kind="stable")]
        ends = np.searchsorted(firings.latent[chosen], np.arange(len(firings.latents) + 1))
        shares = one_of_each(split(np.stack([ends[:-1], ends[1:]], axis=1), self.n), priority[chosen])
        return Shown.entries(firings, np.where(shares >= 0, chosen[shares], -1) if len(chosen) else shares)

    def _silent(
        self,
        firings: Firings,
        rows: Int64[np.ndarray, "latents candidates"],
        taken: Int64[np.ndarray, " taken"],
        n: int,
    ) -> Int64[np.ndarray, "latents n"]:
        """Return the first rows of other examples on which a latent is silent; -1 where there are fewer."""
        there = rows >= 0
        rows = np.where(there, rows, 0)
        latent, example = np.arange(len(rows))[:, None], self.origins.example[rows]
        free = there & _first_of_each(example, there) & ~_among(self._key(latent, example), taken)
        low, high = self.origins.span(rows)
        if self.reach is not None:
            low, high = np.maximum(low, rows - self.reach), np.minimum(high, rows + self.reach + 1)
        rank = np.where(free & _silent_on(firings, low, high), 0, 2)
        if self.reach is not None:
            rank = np.where((rank == 2) & free & _silent_on(firings, rows, rows + 1), 1, rank)
        order = np.argsort(rank, axis=1, kind="stable")[:, :n]
        found = np.where(rank < 2, rows, -1)
        return np.take_along_axis(found, order, axis=1)

    def _priorities(
        self, firings: Firings, rows: Int64[np.ndarray, "*shape"], latent: Int64[np.ndarray, "*shape"] | None = None
    ) -> UInt64[np.ndarray, "*shape"]:
        if self.few_examples:
            return priorities(self.origins.example[rows], self.seed)
        number = np.arange(len(rows))[:, None] if latent is None else latent
        return priorities(number * firings.n_rows + rows + self._first(firings), self.seed)

    @staticmethod
    def _first(firings: Firings) -> int:
        """Return the number of the first latent's first row, so that a draw does not depend on how latents are read."""
        return firings.latents.start * firings.n_rows

    def _key(
        self, latent: Int64[np.ndarray, "*#shape"], example: Int64[np.ndarray, "*#shape"]
    ) -> Int64[np.ndarray, "*#shape"]:
        return latent * (int(self.origins.example[-1]) + 1) + example

    def _keys(self, rows: Int64[np.ndarray, "latents slots"]) -> Int64[np.ndarray, " filled"]:
        """Return the distinct pairs of latent and example, as numbers."""
        latent, slot = np.nonzero(rows >= 0)
        return np.unique(self._key(latent, self.origins.example[rows[latent, slot]]))


def section(refs: Mapping[str, list[list[Ref]]]) -> list[dict[str, Any]] | None:
    """Return the section "held_out" of one latent; None where it has too few to test anything on.

    Args:
        refs: by the names in `NAMES`.
    """
    found = {name: [compact(ref) for slot in refs[name] for ref in slot] for name in NAMES}
    firing = [{"fires": True} | ref for ref in found["held_firing"]]
    silent = [{"fires": False, "near": name == "held_near"} | ref for name in NAMES[1:] for ref in found[name]]
    return firing + silent if min(len(firing), len(silent)) >= FEWEST else None


def compact(ref: Ref) -> Ref:
    """Leave out what whoever judges must not see, and text further away; `whole` says that no token is in question."""
    kept = {name: value for name, value in ref.items() if name not in ("values", "grid", "tokens", "start")}
    if "tokens" not in ref:
        return kept
    tokens: Sequence[str] = ref["tokens"]
    place = ref["position"] - ref["start"]
    if all(value is None for value in ref["values"]):
        return kept | {"start": ref["start"], "tokens": tokens[: 2 * REACH + 1], "whole": True}
    first = max(0, place - REACH)
    return kept | {"start": ref["start"] + first, "tokens": tokens[first : place + REACH + 1]}


def _first_of_each(
    example: Int64[np.ndarray, "latents slots"], there: Bool[np.ndarray, "latents slots"]
) -> Bool[np.ndarray, "latents slots"]:
    """Mark, in every line, the first slot of each example; slots that are not there count for none."""
    keyed = np.where(there, example, -1 - np.arange(example.shape[1]))
    order = np.argsort(keyed, axis=1, kind="stable")
    ranked = np.take_along_axis(keyed, order, axis=1)
    new = np.diff(ranked, axis=1, prepend=ranked[:, :1] - 1) != 0
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first


def _among(numbers: Int64[np.ndarray, "*shape"], some: Int64[np.ndarray, " some"]) -> Bool[np.ndarray, "*shape"]:
    """Say which numbers are among some rising ones."""
    place = np.searchsorted(some, numbers)
    return some[np.minimum(place, len(some) - 1)] == numbers if len(some) else np.zeros(numbers.shape, dtype=bool)


def _silent_on(
    firings: Firings, low: Int64[np.ndarray, "latents rows"], high: Int64[np.ndarray, "latents rows"]
) -> Bool[np.ndarray, "latents rows"]:
    """Say where a latent fires on none of the rows from `low` to before `high`."""
    begin = np.arange(len(low))[:, None] * firings.n_rows
    first, last = (np.searchsorted(firings.places, begin + end) for end in (low, high))
    return first == last

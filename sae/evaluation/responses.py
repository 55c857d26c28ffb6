"""What units do on items: one interface to sparse latents and to dense units, without ever building items x units.

A *unit* is a latent of a dictionary, a raw neuron, a principal component. An *item* is a row of the store, or an
example when rows are pooled. A unit *fires* on an item where its activation is above zero.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.evaluation import ranks
from sae.evaluation.pooling import pool_entries
from sae.evaluation.weights import UNITS_AT_ONCE, Weights

UNIT_BLOCK = 16
"""Dense units computed at a time."""
HELD_BYTES = 512 << 20
"""Memory up to which dense activations are held; larger ones are computed whenever they are asked for."""
SORTED_BLOCK = 4
"""Dense units sorted at a time: what sorting handles should stay in cache."""


class Responses(ABC):
    """Activations of `n_units` units on `n_items` items."""

    n_items: int
    n_units: int

    @abstractmethod
    def on(self, keep: Bool[Tensor, " items"]) -> Self:
        """Return the responses on some of the items, renumbered in order."""

    def parts(self) -> Iterator[Self]:
        """Yield the responses of consecutive units, of some at a time."""
        for first in range(0, self.n_units, UNITS_AT_ONCE):
            yield self.of_units(range(first, min(first + UNITS_AT_ONCE, self.n_units)))

    @abstractmethod
    def blocks(self, n_units: int = UNIT_BLOCK) -> Iterator[tuple[int, Float[Tensor, "items block"]]]:
        """Yield dense columns of consecutive units with the number of the first one."""

    @abstractmethod
    def columns(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "items chosen"]:
        """Return dense columns of a few units."""

    @abstractmethod
    def places(self, units: Int[Tensor, " chosen"]) -> Int[np.ndarray, "chosen items"]:
        """Count, for each item and a few units, the items on which the unit's activation is no smaller."""

    @abstractmethod
    def of_units(self, units: range) -> Self:
        """Return the responses of consecutive units alone."""

    @abstractmethod
    def auc(self, labels: Bool[Tensor, "items labels"] | Weights) -> Float[Tensor, "units labels"]:
        """Area under the ROC curve of each unit as a detector of each label, in float64.

        The probability that an item with the label has a larger activation than one without it, ties counting half
        (Mann and Whitney 1947). A unit that never varies scores exactly 0.5. Columns whose label is on every item or
        on none are nan. Exact: every item counts, also those on which a unit is silent.
        """

    @abstractmethod
    def total(
        self, weights: Float[Tensor, "items features"] | Weights, power: int = 1
    ) -> Float[Tensor, "units features"]:
        """Sum weights over items times the activation, or a power of it."""

    @abstractmethod
    def fired_total(self, weights: Float[Tensor, "items features"] | Weights) -> Float[Tensor, "units features"]:
        """Sum weights over the items on which each unit fires."""

    @property
    @abstractmethod
    def n_fired(self) -> Int[Tensor, " units"]:
        """Items on which each unit fires."""

    @property
    @abstractmethod
    def maximum(self) -> Float[Tensor, " units"]:
        """Largest activation of each unit; silence counts as 0."""

    @property
    @abstractmethod
    def minimum(self) -> Float[Tensor, " units"]:
        """Smallest activation of each unit; silence counts as 0."""

    @abstractmethod
    def kth_largest(self, k: int) -> Float[Tensor, " units"]:
        """Return the k-th largest positive activation of each unit, 0 where it fires on fewer than k items."""

    @abstractmethod
    def at_least(self, threshold: Float[Tensor, " units"]) -> "SparseResponses":
        """Keep the positive activations that reach the threshold of their unit; all others become silence."""

    def top(self, n: int) -> tuple[Int[Tensor, "units n"], Float[Tensor, "units n"]]:
        """Return the items with the n largest activations of each unit, and these; fewer items than n is an error."""
        found = [block.topk(n, dim=0) for _, block in self.blocks()]
        return torch.cat([top.indices.T for top in found]), torch.cat([top.values.T for top in found])


class SparseResponses(Responses):
    """Non-zero activations only, sorted by unit, then by value: unit u owns entries offsets[u]:offsets[u + 1]."""

    def __init__(
        self,
        offsets: Int[Tensor, " units_plus_1"],
        items: Int[Tensor, " nnz"],
        values: Float[Tensor, " nnz"],
        n_items: int,
    ) -> None:
        self.offsets, self.items, self.values = offsets, items, values
        self.n_items, self.n_units = n_items, len(offsets) - 1

    @classmethod
    def of_entries(
        cls,
        items: Int[Tensor, " nnz"],
        units: Int[Tensor, " nnz"],
        values: Float[Tensor, " nnz"],
        n_items: int,
        n_units: int,
    ) -> Self:
        """Sort entries in any order; an (item, unit) pair must not occur twice."""
        order = ranks.stable_sort(ranks.float_keys(values.numpy()))[1]
        order = torch.from_numpy(order[ranks.stable_sort(units.numpy()[order])[1]])
        offsets = torch.zeros(n_units + 1, dtype=torch.int64)
        offsets[1:] = torch.bincount(units, minlength=n_units).cumsum(0)
        return cls(offsets, items[order].int(), values[order].float(), n_items)

    @classmethod
    def of_codes(cls, codes: Codes, item: Int[Tensor, " rows"], n_items: int) -> Self:
        """Take the activations from codes, pooling rows of the same item by their maximum.

        Args:
            codes: of the rows.
            item: what each row belongs to; rows of an item are neighbours, and items come in order.
            n_items: how many items there are.
        """
        codes = codes.to("cpu")
        active = codes.values != 0
        row, unit, value = codes.rows[active], codes.indices[active], codes.values[active].float()
        return cls.of_entries(*pool_entries(item[row], unit, value, item, codes.d_sae), n_items, codes.d_sae)

    @property
    def counts(self) -> Int[Tensor, " units"]:
        """Entries of each unit."""
        return self.offsets.diff()

    @property
    def units(self) -> Int[Tensor, " nnz"]:
        """Unit of every entry."""
        return torch.arange(self.n_units).repeat_interleave(self.counts, output_size=len(self.items))

    def on(self, keep: Bool[Tensor, " items"]) -> Self:
        number = keep.long().cumsum(0) - 1
        kept = self._kept(keep[self.items])
        return type(self)(kept.offsets, number[kept.items].int(), kept.values, int(keep.sum().item()))

    def kth_largest(self, k: int) -> Float[Tensor, " units"]:
        out = torch.zeros(self.n_units)
        enough = self.counts >= k
        out[enough] = self.values[self.offsets[1:][enough] - k].clamp(min=0)
        return out

    def at_least(self, threshold: Float[Tensor, " units"]) -> "SparseResponses":
        return self._kept((self.values > 0) & (self.values >= threshold[self.units]))

    def blocks(self, n_units: int = UNIT_BLOCK) -> Iterator[tuple[int, Float[Tensor, "items block"]]]:
        for first in range(0, self.n_units, n_units):
            stop = min(first + n_units, self.n_units)
            yield first, self.columns(torch.arange(first, stop))

    def columns(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "items chosen"]:
        out = torch.zeros(self.n_items, len(units))
        for column, unit in enumerate(units.tolist()):
            start, stop = self.offsets[unit], self.offsets[unit + 1]
            out[self.items[start:stop], column] = self.values[start:stop]
        return out

    def places(self, units: Int[Tensor, " chosen"]) -> Int[np.ndarray, "chosen items"]:
        offsets = torch.zeros(len(units) + 1, dtype=torch.int64)
        offsets[1:] = self.counts[units].cumsum(0)
        entries = _ranges(self.offsets[units], offsets)
        values, items = self.values[entries].numpy(), self.items[entries].numpy()
        column = torch.arange(len(units)).repeat_interleave(offsets.diff()).numpy()
        n_silent, n_above = self.n_items - self.counts[units].numpy(), self.n_fired[units].numpy()
        found = np.empty((len(units), self.n_items), dtype=np.int32)
        found[:] = (n_above + n_silent)[:, None]
        found[column, items] = ranks.places(values, offsets.numpy()) + np.where(values > 0, 0, n_silent[column])
        return found

    def of_units(self, units: range) -> Self:
        offsets = self.offsets[units.start : units.stop + 1]
        start, stop = int(offsets[0]), int(offsets[-1])
        return type(self)(offsets - start, self.items[start:stop], self.values[start:stop], self.n_items)

    def auc(self, labels: Bool[Tensor, "items labels"] | Weights) -> Float[Tensor, "units labels"]:
        labels, silent = Weights.of(labels), self.n_items - self.counts
        # The silent items tie between the negative and the positive activations. Relative to their shared rank they
        # contribute nothing, so the sums run over entries only.
        below_zero = self.counts - self.n_fired
        silent_rank = below_zero + (silent + 1) / 2
        units, rank = self.units, torch.from_numpy(ranks.ranks(self.values.numpy(), self.offsets.numpy()))
        relative = rank + torch.where(self.values > 0, silent[units], 0) - silent_rank[units]
        sums = labels.over_entries(self.offsets, self.items, relative)
        sums += silent_rank[:, None] * labels.totals
        return _auc_of_rank_sums(sums, labels)

    def total(
        self, weights: Float[Tensor, "items features"] | Weights, power: int = 1
    ) -> Float[Tensor, "units features"]:
        return self._summed(weights, self.values.double() ** power)

    def fired_total(self, weights: Float[Tensor, "items features"] | Weights) -> Float[Tensor, "units features"]:
        return self._summed(weights, self.values > 0)

    @cached_property
    def n_fired(self) -> Int[Tensor, " units"]:
        below = torch.zeros(len(self.values) + 1, dtype=torch.int64)
        torch.cumsum(self.values > 0, 0, out=below[1:])
        return below[self.offsets].diff()

    @property
    def maximum(self) -> Float[Tensor, " units"]:
        # Entries are sorted by value within a unit, so the last one is the largest.
        return self._edge(self.offsets[1:] - 1, torch.maximum)

    @property
    def minimum(self) -> Float[Tensor, " units"]:
        return self._edge(self.offsets[:-1], torch.minimum)

    def segment_sums(self, values: Float[Tensor, "nnz features"]) -> Float[Tensor, "units features"]:
        """Sum values of entries over the entries of each unit."""
        return torch.segment_reduce(values, "sum", offsets=self.offsets, axis=0, initial=0.0)

    def _kept(self, keep: Bool[Tensor, " nnz"]) -> Self:
        """Drop entries; the items stay."""
        below = torch.cat([torch.zeros(1, dtype=torch.int64), keep.long().cumsum(0)])
        return type(self)(below[self.offsets], self.items[keep], self.values[keep], self.n_items)

    def _summed(
        self, weights: Float[Tensor, "items features"] | Weights, factors: Shaped[Tensor, " nnz"]
    ) -> Float[Tensor, "units features"]:
        """Sum the weights of the items of each unit's entries, each times a factor of the entry."""
        if isinstance(weights, Weights):
            return weights.over_entries(self.offsets, self.items, factors)
        return F.embedding_bag(
            self.items.long(),
            weights,
            self.offsets,
            mode="sum",
            per_sample_weights=factors.to(weights.dtype),
            include_last_offset=True,
        )

    def _edge(self, entry: Int[Tensor, " units"], choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return an extreme entry of each unit, against 0 where some items are silent."""
        out = torch.zeros(self.n_units)
        some = self.counts > 0
        extreme = self.values[entry[some]]
        everywhere = self.counts[some] == self.n_items
        out[some] = torch.where(everywhere, extreme, choose(extreme, torch.zeros(())))
        return out


Columns = Callable[[Int[Tensor, " chosen"]], Float[Tensor, "items chosen"]]


class DenseResponses(Responses):
    """Units that rarely rest, a block of them at a time; computed when they are asked for, or held."""

    def __init__(self, compute: Columns, n_items: int, n_units: int) -> None:
        self._compute, self.n_items, self.n_units = compute, n_items, n_units

    @classmethod
    def of(cls, compute: Columns, n_items: int, n_units: int) -> Self:
        """Compute all activations at once and hold them, where memory allows it."""
        if n_items * n_units * torch.float32.itemsize > HELD_BYTES:
            return cls(compute, n_items, n_units)
        held = compute(torch.arange(n_units))
        return cls(lambda units: held[:, units], n_items, n_units)

    def on(self, keep: Bool[Tensor, " items"]) -> Self:
        return type(self)(lambda units: self._compute(units)[keep], int(keep.sum().item()), self.n_units)

    def blocks(self, n_units: int = UNIT_BLOCK) -> Iterator[tuple[int, Float[Tensor, "items block"]]]:
        for first in range(0, self.n_units, n_units):
            yield first, self._compute(torch.arange(first, min(first + n_units, self.n_units)))

    def columns(self, units: Int[Tensor, " chosen"]) -> Float[Tensor, "items chosen"]:
        return self._compute(units)

    def places(self, units: Int[Tensor, " chosen"]) -> Int[np.ndarray, "chosen items"]:
        parts = [_ranked(self._compute(part), ranks.places, np.dtype(np.int32)) for part in units.split(SORTED_BLOCK)]
        return np.concatenate(parts)

    def of_units(self, units: range) -> Self:
        return type(self)(lambda chosen: self._compute(chosen + units.start), self.n_items, len(units))

    def auc(self, labels: Bool[Tensor, "items labels"] | Weights) -> Float[Tensor, "units labels"]:
        labels, sums = Weights.of(labels), []
        for _, block in self.blocks():
            parts = [_ranked(part, ranks.ranks, np.dtype(np.float64)) for part in block.split(SORTED_BLOCK, 1)]
            sums.append(labels.over_columns(np.concatenate(parts).T))
        return _auc_of_rank_sums(torch.cat(sums), labels)

    def kth_largest(self, k: int) -> Float[Tensor, " units"]:
        if k > self.n_items:
            return torch.zeros(self.n_units)
        found = [block.T.contiguous().topk(k).values[:, -1] for _, block in self.blocks()]
        return torch.cat(found).float().clamp(min=0)

    def at_least(self, threshold: Float[Tensor, " units"]) -> SparseResponses:
        parts = []
        for first, block in self.blocks():
            block = block.float()
            item, unit = ((block > 0) & (block >= threshold[first : first + block.shape[1]])).nonzero(as_tuple=True)
            parts.append((item, unit + first, block[item, unit]))
        items, units, values = (torch.cat(column) for column in zip(*parts, strict=True))
        return SparseResponses.of_entries(items, units, values, self.n_items, self.n_units)

    def total(
        self, weights: Float[Tensor, "items features"] | Weights, power: int = 1
    ) -> Float[Tensor, "units features"]:
        return torch.cat([_weighted(block, weights, power) for _, block in self.blocks()])

    def fired_total(self, weights: Float[Tensor, "items features"] | Weights) -> Float[Tensor, "units features"]:
        return torch.cat([_weighted(block > 0, weights) for _, block in self.blocks()])

    @property
    def n_fired(self) -> Int[Tensor, " units"]:
        return torch.cat([(block > 0).sum(0) for _, block in self.blocks()])

    @property
    def maximum(self) -> Float[Tensor, " units"]:
        return torch.cat([block.amax(0) for _, block in self.blocks()])

    @property
    def minimum(self) -> Float[Tensor, " units"]:
        return torch.cat([block.amin(0) for _, block in self.blocks()])


def own_auc(activations: Float[Tensor, "items pairs"], labels: Bool[Tensor, "items pairs"]) -> Float[Tensor, " pairs"]:
    """Return the area of each column of activations as a detector of the same column of labels; see `Responses`."""
    rank = _ranked(activations, ranks.ranks, np.dtype(np.float64))
    positives = labels.sum(0).double()
    sums = torch.from_numpy(rank).T.where(labels, 0).sum(0)
    return (sums - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def _ranges(starts: Int[Tensor, " units"], offsets: Int[Tensor, " units_plus_1"]) -> Int[Tensor, " entries"]:
    """Lay ranges end to end, each from its start, as long as the offsets say."""
    return torch.arange(int(offsets[-1])) + (starts - offsets[:-1]).repeat_interleave(offsets.diff())


def _ranked(
    block: Float[Tensor, "items units"], what: Callable[[np.ndarray, np.ndarray], np.ndarray], dtype: np.dtype
) -> np.ndarray:
    """Sort dense columns and put what is asked of the sorted entries back at their items, [units items]."""
    ordered, order = ranks.stable_sort(ranks.float_keys(block.float().T.contiguous().numpy()))
    n_units, n_items = order.shape
    found = what(ordered.ravel(), np.arange(n_units + 1) * n_items).reshape(n_units, n_items)
    out = np.empty((n_units, n_items), dtype=dtype)
    np.put_along_axis(out, order, found, 1)
    return out


def _weighted(
    block: Shaped[Tensor, "items units"], weights: Float[Tensor, "items features"] | Weights, power: int = 1
) -> Float[Tensor, "units features"]:
    """Sum weights over items times dense columns, or a power of them."""
    if isinstance(weights, Weights):
        return weights.over_columns(block.double() ** power)
    return block.T.to(weights.dtype) ** power @ weights


def _auc_of_rank_sums(sums: Float[Tensor, "units labels"], labels: Weights) -> Float[Tensor, "units labels"]:
    """Turn the rank sums of labelled items into areas, in place: nan (0 / 0) where a class is empty."""
    positives = labels.totals
    sums -= positives * (positives + 1) / 2
    sums /= positives * (labels.n_items - positives)
    return sums

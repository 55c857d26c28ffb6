"""Which rows of a grid are read, in order."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Self

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Kept = Int[Tensor, " _"] | None
"""Rows of a shard in rising order, int32; None for all of them."""


class RowIndex:
    """The kept rows of every shard; costs four bytes a row in shards that are not kept whole, else nothing."""

    def __init__(self, n_rows: Sequence[int], kept: Sequence[Kept]) -> None:
        self.n_rows, self.kept = tuple(n_rows), tuple(kept)
        counts = [n if rows is None else len(rows) for n, rows in zip(self.n_rows, self.kept, strict=True)]
        self.offsets = [0, *accumulate(counts)]

    @classmethod
    def all(cls, n_rows: Sequence[int]) -> Self:
        """Keep everything."""
        return cls(n_rows, [None] * len(n_rows))

    def __len__(self) -> int:
        return self.offsets[-1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowIndex) or self.n_rows != other.n_rows or self.offsets != other.offsets:
            return False
        pairs = zip(self.kept, other.kept, strict=True)
        return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_shards(self) -> int:
        """Shards of the grid, with or without kept rows."""
        return len(self.n_rows)

    def keep(self, wanted: Callable[[int], Bool[Tensor, " rows"]]) -> Self:
        """Keep only what `wanted(shard)` also marks, among all rows of that shard."""
        kept: list[Kept] = []
        for shard, (n, rows) in enumerate(zip(self.n_rows, self.kept, strict=True)):
            mask = wanted(shard)
            chosen = mask.nonzero().squeeze(1).to(torch.int32) if rows is None else rows[mask[rows]]
            kept.append(None if len(chosen) == n else chosen)
        return type(self)(self.n_rows, kept)

    def locate(self, start: int, stop: int) -> Iterator[tuple[int, slice | Int[Tensor, " batch"]]]:
        """Yield shard and rows of consecutive kept rows; a slice where they also lie consecutively."""
        shard = bisect_right(self.offsets, start) - 1
        while start < stop:
            first, end = self.offsets[shard], min(self.offsets[shard + 1], stop)
            if end > start:
                rows = self.kept[shard]
                if rows is None:
                    yield shard, slice(start - first, end - first)
                else:
                    part = rows[start - first : end - first]
                    low, high = int(part[0]), int(part[-1]) + 1
                    yield shard, slice(low, high) if high - low == len(part) else part
                start = end
            shard += 1

    def find(self, rows: Int[Tensor, " n"]) -> Iterator[tuple[int, slice, Int[Tensor, " part"]]]:
        """Yield every shard that holds some of the kept rows of these rising numbers: which of them, and where."""
        cuts = torch.searchsorted(rows, torch.tensor(self.offsets, dtype=rows.dtype)).tolist()
        for shard, (first, stop) in enumerate(pairwise(cuts)):
            if stop > first:
                within, kept = rows[first:stop] - self.offsets[shard], self.kept[shard]
                yield shard, slice(first, stop), within if kept is None else kept[within]

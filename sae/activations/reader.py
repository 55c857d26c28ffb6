"""Reading a store in random order at the speed of reading it in order.

The rows are cut into blocks of at least 1 MiB. Every epoch permutes the blocks, whatever shard they lie in, and takes
them a window at a time; the rows of a window are permuted together. A vector thus meets vectors of as many places as
a window has blocks, and the disk sees long reads only.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.activations.join import on_the_same_rows
from sae.activations.store import Vectors
from sae.errors import StoreError

Batch = TypeVar("Batch")

BLOCK_BYTES = 1 << 20
_STATE_KEYS = ("seed", "batch_vectors", "block_rows", "window_blocks", "n_vectors")


class ShuffledReader(Generic[Batch]):
    """Endless batches in which every row appears exactly once per epoch; a batch may span two epochs.

    Over one `Vectors` it yields x [batch d_in]; over a tuple of aligned ones, a tuple of such, row by row together.
    The next window is read in the background, so two windows are held in memory.

    Args:
        vectors: what to read.
        batch_vectors: rows per batch.
        seed: the same seed gives the same order.
        window_bytes: size of a window in the stored dtype, over all vectors.
        dtype: of the batches.

    Raises:
        StoreError: there are no rows, or the vectors do not lie on the same rows.
    """

    @overload
    def __init__(
        self: "ShuffledReader[Tensor]",
        vectors: Vectors,
        batch_vectors: int,
        seed: int,
        *,
        window_bytes: int = ...,
        dtype: torch.dtype = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: "ShuffledReader[tuple[Tensor, ...]]",
        vectors: tuple[Vectors, ...],
        batch_vectors: int,
        seed: int,
        *,
        window_bytes: int = ...,
        dtype: torch.dtype = ...,
    ) -> None: ...

    def __init__(
        self,
        vectors: Vectors | tuple[Vectors, ...],
        batch_vectors: int,
        seed: int,
        *,
        window_bytes: int = 128 << 20,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.vectors = vectors if isinstance(vectors, tuple) else (vectors,)
        self._single = not isinstance(vectors, tuple)
        self.n_vectors = _common_length(self.vectors)
        self.batch_vectors, self.seed, self.dtype = batch_vectors, seed, dtype
        row_bytes = [v.d_in * v.dtype.itemsize for v in self.vectors]
        self.block_rows = min(-(-BLOCK_BYTES // min(row_bytes)), self.n_vectors)
        self.n_blocks = -(-self.n_vectors // self.block_rows)
        self.window_blocks = min(max(2, window_bytes // (self.block_rows * sum(row_bytes))), self.n_blocks)
        self.n_windows = -(-self.n_blocks // self.window_blocks)
        self.epoch, self.cursor = 0, 0
        self._executor = ThreadPoolExecutor(1, "sae-reader")
        self._coming: tuple[tuple[int, int], Future[_Window]] | None = None
        self._window: _Window | None = None

    def __iter__(self) -> "ShuffledReader[Batch]":
        return self

    def __next__(self) -> Batch:
        batches = tuple(torch.empty(self.batch_vectors, v.d_in, dtype=self.dtype) for v in self.vectors)
        filled = 0
        while filled < self.batch_vectors:
            window = self._current()
            start = self.cursor - window.first
            n = min(self.batch_vectors - filled, len(window) - start)
            for batch, rows in zip(batches, window.rows, strict=True):
                batch[filled : filled + n].copy_(rows.index_select(0, window.order[start : start + n]))
            filled += n
            self.cursor += n
            if self.cursor == self.n_vectors:
                self.epoch, self.cursor = self.epoch + 1, 0
        return batches[0] if self._single else batches  # type: ignore[return-value]

    def state_dict(self) -> dict[str, int]:
        """Return the place in the order; windows are made again from it."""
        return {key: getattr(self, key) for key in (*_STATE_KEYS, "epoch", "cursor")}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved place with the batches that would have come next.

        Raises:
            StoreError: the state is that of another order: other seed, rows, batch or window size.
        """
        for key in _STATE_KEYS:
            if state[key] != getattr(self, key):
                raise StoreError(f"reader state: {key} was {state[key]}, now {getattr(self, key)}; use it again.")
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        self._window = None

    def _current(self) -> "_Window":
        """Return the window that holds the cursor, and have the next one read."""
        window = self._window
        if window is None or window.epoch != self.epoch or not window.first <= self.cursor < window.first + len(window):
            place = (self.epoch, self._number_at(self.cursor))
            foreseen = self._coming is not None and self._coming[0] == place
            window = self._coming[1].result() if self._coming and foreseen else self._load(*place)
            self._window = window
            after = divmod(place[1] + 1, self.n_windows)
            self._coming = None
            if self.n_windows > 1:
                coming = (place[0] + after[0], after[1])
                self._coming = (coming, self._executor.submit(self._load, *coming))
        return window

    def _blocks(self, epoch: int) -> list[Int[np.ndarray, " _"]]:
        """Return the blocks of every window of an epoch; windows differ by at most one block."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n_blocks)
        return np.array_split(order, self.n_windows)

    def _size(self, blocks: Int[np.ndarray, " block"]) -> int:
        last_is_short = self.n_blocks * self.block_rows - self.n_vectors
        return len(blocks) * self.block_rows - (last_is_short if self.n_blocks - 1 in blocks else 0)

    def _number_at(self, cursor: int) -> int:
        ends = np.cumsum([self._size(blocks) for blocks in self._blocks(self.epoch)])
        return int(np.searchsorted(ends, cursor, side="right"))

    def _load(self, epoch: int, number: int) -> "_Window":
        windows = self._blocks(epoch)
        first = sum(self._size(blocks) for blocks in windows[:number])
        n_rows = self._size(windows[number])
        rows = [torch.empty(n_rows, v.d_in, dtype=v.dtype) for v in self.vectors]
        filled = 0
        for block in windows[number].tolist():
            start = block * self.block_rows
            n = min(self.block_rows, self.n_vectors - start)
            for vectors, target in zip(self.vectors, rows, strict=True):
                vectors.read_into(target[filled : filled + n], start)
            filled += n
        order = np.random.default_rng([self.seed, epoch, number + 1]).permutation(n_rows)
        return _Window(epoch, first, rows, torch.from_numpy(order))


class _Window:
    """Rows in memory and the order in which they leave it; `first` counts the rows of the epoch before it."""

    def __init__(
        self, epoch: int, first: int, rows: list[Float[Tensor, "batch _"]], order: Int[Tensor, " batch"]
    ) -> None:
        self.epoch, self.first, self.rows, self.order = epoch, first, rows, order

    def __len__(self) -> int:
        return len(self.order)


def _common_length(vectors: Sequence[Vectors]) -> int:
    lengths = {len(v) for v in vectors}
    if len(lengths) != 1 or lengths == {0}:
        raise StoreError(f"cannot read {', '.join(map(repr, vectors))} together: they need the same rows, and some.")
    first, *others = [part for v in vectors for part in v.parts]
    for other in others:
        if not on_the_same_rows(first, other):
            raise StoreError(f"{first!r} and {other!r} lie on different rows; align them with join().")
    return lengths.pop()

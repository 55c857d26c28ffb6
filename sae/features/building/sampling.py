"""Choosing which firings a card shows: exact ranks, the strongest per example, and one at random of every part.

Everything works on all latents of a range at once, and what is chosen for a latent depends on its own firings and the
seed alone, not on how latents were read.
"""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt64

from sae.activations.rows import scramble
from sae.features.building.firings import Firings

SHIFT = np.int64(32)
LARGEST_BITS = np.int64(0x7FFFFFFF)

Entries = Int64[np.ndarray, "latents slots"]
"""Numbers of firings within a range; -1 where a latent has no more."""


class Ranked:
    """The firings of each latent from its weakest to its strongest; equal ones in the order of their rows."""

    def __init__(self, firings: Firings) -> None:
        self.firings = firings
        keys = (firings.latent << SHIFT) | bits(firings.values)
        ordered, order = torch.from_numpy(keys).sort(stable=True)
        self._keys: np.ndarray = ordered.numpy()
        self.order: np.ndarray = order.numpy()
        """Entry at each rank; the ranks of latent i are `offsets[i]:offsets[i + 1]`, as its entries are."""

    @cached_property
    def values(self) -> Float32[np.ndarray, " nnz"]:
        """Activations in this order."""
        return self.firings.values[self.order]

    def below(self, edges: Float32[np.ndarray, "latents edges"]) -> Int64[np.ndarray, "latents edges"]:
        """Return the rank at which each latent's firings reach its edges, none of which is negative."""
        latent = np.arange(len(edges), dtype=np.int64)[:, None]
        return np.searchsorted(self._keys, ((latent << SHIFT) | bits(edges)).ravel()).reshape(edges.shape)

    def bounds(self, edges: Float32[np.ndarray, "latents edges"]) -> Int64[np.ndarray, "latents edges"]:
        """Return where the ranks between edges begin and end; what lies beyond the outer edges is counted in."""
        offsets = self.firings.offsets
        return np.concatenate([offsets[:-1, None], self.below(edges[:, 1:-1]), offsets[1:, None]], axis=1)


def bits(values: Float32[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Return integers that order as numbers do that are not negative."""
    return np.ascontiguousarray(values, dtype=np.float32).view(np.int32).astype(np.int64)


def strongest(firings: Firings, example: Int64[np.ndarray, " nnz"], n: int) -> Entries:
    """Return the strongest firing of each of the n examples that excite a latent most, strongest first.

    Args:
        firings: of a range of latents.
        example: of each firing.
        n: how many; of equal ones those of earlier rows.
    """
    peaks = example_peaks(firings, example)
    latent = firings.latent[peaks]
    falling = (latent << SHIFT) | (LARGEST_BITS - bits(firings.values[peaks]))
    ordered = peaks[torch.from_numpy(falling).sort(stable=True).indices.numpy()]
    ends = np.searchsorted(latent, np.arange(len(firings.latents) + 1))
    place = ends[:-1, None] + np.arange(n)
    found = np.full(place.shape, -1, dtype=np.int64)
    there = place < ends[1:, None]
    found[there] = ordered[place[there]]
    return found


def example_peaks(firings: Firings, example: Int64[np.ndarray, " nnz"]) -> Int64[np.ndarray, " peaks"]:
    """Return, in order, the strongest firing of each latent in each example; the first of equal ones."""
    if not len(example):
        return np.zeros(0, dtype=np.int64)
    new = (np.diff(example) != 0) | (np.diff(firings.latent) != 0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    run = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(example)))
    reached = np.flatnonzero(firings.values == np.maximum.reduceat(firings.values, starts)[run])
    return reached[np.diff(run[reached], prepend=-1) != 0]


def split(bounds: Int64[np.ndarray, "latents bounds"], n: int) -> Int64[np.ndarray, "latents finer"]:
    """Cut every stretch between bounds into n of sizes as equal as can be."""
    steps = np.arange(n)
    size = np.diff(bounds, axis=1)[:, :, None]
    inner = bounds[:, :-1, None] + size * steps // n
    return np.concatenate([inner.reshape(len(bounds), -1), bounds[:, -1:]], axis=1)


def one_of_each(
    bounds: Int64[np.ndarray, "latents bounds"], priority: UInt64[np.ndarray, " nnz"]
) -> Int64[np.ndarray, "latents parts"]:
    """Return where the priority is lowest within every part between bounds, which leave no gap; -1 for empty parts."""
    starts, stops = bounds[:, :-1].ravel(), bounds[:, 1:].ravel()
    filled = stops > starts
    found = np.full(len(starts), -1, dtype=np.int64)
    if filled.any():
        low = np.uint64(0xFFFFFFFF)
        packed = (priority & ~low) | np.arange(len(priority), dtype=np.uint64)
        found[filled] = (np.minimum.reduceat(packed, starts[filled]) & low).astype(np.int64)
    return found.reshape(len(bounds), -1)


def priorities(numbers: Shaped[np.ndarray, "*shape"], seed: int) -> UInt64[np.ndarray, "*shape"]:
    """Return a random number for each number, always the same."""
    start = scramble(np.array([seed], dtype=np.uint64))
    return scramble(start + numbers.astype(np.uint64))

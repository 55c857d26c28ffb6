"""Aligning rows of several grids or stores: two subjects on the same inputs, an image with its caption."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from sae.activations.store import Vectors
from sae.errors import StoreError

Key = Literal["example", "position"]

_POSITION_BITS = 31


def join(vectors: Sequence[Vectors], on: tuple[Key, ...] = ("example", "position")) -> tuple[Vectors, ...]:
    """Keep the rows that all of them have, in the same order, so that row i of each is the same place.

    Args:
        vectors: two or more; their stores must have been made from the same inputs.
        on: what identifies a row. ("example",) needs grids of one row per example, such as the pooled ones.

    Raises:
        StoreError: the stores have other inputs, or `on` does not tell the rows of one of them apart.
    """
    fingerprints = {v.store.manifest.inputs.fingerprint for v in vectors}
    if len(vectors) < 2 or len(fingerprints) != 1:
        raise StoreError(f"join: needs two or more vectors of the same inputs, got {len(vectors)} of {fingerprints}.")
    if "example" not in on:
        raise StoreError(f"join: rows are identified by example and position, got {list(on)}.")
    masks = [[np.zeros(n, dtype=bool) for n in v.index.n_rows] for v in vectors]
    span = max(v.store.manifest.shard_examples for v in vectors)
    n_examples = vectors[0].store.manifest.inputs.n_examples
    for start in range(0, n_examples, span):
        keys = [_Keys(v, start, start + span, on) for v in vectors]
        common = keys[0].values
        for other in keys[1:]:
            common = np.intersect1d(common, other.values, assume_unique=True)
        for mask, found in zip(masks, keys, strict=True):
            found.mark(mask, common)
    name = hashlib.sha256(" ".join([*on, *(_identity(v) for v in vectors)]).encode()).hexdigest()
    return tuple(
        v.restricted(v.index.keep(lambda shard, mask=mask: torch.from_numpy(mask[shard])), joined=name)
        for v, mask in zip(vectors, masks, strict=True)
    )


def align(vectors: Sequence[Vectors]) -> tuple[Vectors, ...]:
    """Bring vectors together row by row: hookpoints of one grid as they are, or where their rows differ, joined.

    One grid in several stores is joined by example and position. Different grids, such as those of the two towers, are
    joined by example, for which each needs one row per example.

    Raises:
        StoreError: the stores have other inputs, or a grid has several rows per example.
    """
    if all(on_the_same_rows(vectors[0], other) for other in vectors[1:]):
        return tuple(vectors)
    grids = list(dict.fromkeys(v.hookpoint.grid for v in vectors))
    if len(grids) == 1:
        return join(vectors)
    try:
        return join(vectors, on=("example",))
    except StoreError as error:
        raise StoreError(
            f"{error} Hookpoints on different grids ({', '.join(grids)}) go together by example, one row each."
        ) from error


def on_the_same_rows(one: Vectors, other: Vectors) -> bool:
    """Whether row i of both is the same place, since they share a store and a grid or have been joined."""
    joined = one.filters.get("joined") is not None and one.filters.get("joined") == other.filters.get("joined")
    same = one.store.hash == other.store.hash and one.hookpoint.grid == other.hookpoint.grid
    return len(one) == len(other) and (joined or (same and one.index == other.index))


def _identity(v: Vectors) -> str:
    return f"{v.store.hash} {v.hookpoint.grid} {sorted(v.filters.items())}"


class _Keys:
    """The keys of the rows of examples `start` to `stop`, and where those rows lie."""

    def __init__(self, vectors: Vectors, start: int, stop: int, on: tuple[Key, ...]) -> None:
        size = vectors.store.manifest.shard_examples
        parts, places = [], []
        for shard in range(start // size, min(-(-stop // size), vectors.index.n_shards)):
            columns = vectors.store.columns(vectors.hookpoint.grid, shard)
            kept = vectors.index.kept[shard]
            rows = np.arange(vectors.index.n_rows[shard]) if kept is None else kept.numpy()
            example = columns["example"].numpy()[rows]
            inside = (start <= example) & (example < stop)
            position = columns["position"].numpy()[rows].astype(np.int64) if "position" in on else 0
            parts.append(((example << _POSITION_BITS) + position)[inside])
            places.append((shard, rows[inside]))
        self.values = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        self._places = places
        if np.any(np.diff(self.values) <= 0):
            raise StoreError(f"{vectors!r}: {list(on)} does not tell its rows apart.")

    def mark(self, masks: list[np.ndarray], common: np.ndarray) -> None:
        """Mark the rows whose keys are common to all."""
        hit, done = np.isin(self.values, common, assume_unique=True), 0
        for shard, rows in self._places:
            masks[shard][rows[hit[done : done + len(rows)]]] = True
            done += len(rows)

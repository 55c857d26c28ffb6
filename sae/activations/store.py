"""Reading a store: vectors by hookpoint, where each row came from, and the examples behind them."""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64, Int, Shaped, UInt8
from torch import Tensor

from sae.activations.examples import StoredInputs
from sae.activations.files import map_tensors
from sae.activations.index import RowIndex
from sae.activations.manifest import Manifest
from sae.activations.statistics import ByKind, Statistics
from sae.activations.writer import read_statistics
from sae.errors import StoreError
from sae.subjects.base import Hookpoint, find_hookpoint
from sae.tensors import Kind

logger = logging.getLogger(__name__)

TRAINING_KINDS = tuple(kind for kind in Kind if kind not in (Kind.BOS, Kind.SPECIAL))
"""What training reads by default: BOS and special tokens have norms and directions of their own."""

_OPEN_SHARDS = 1
"""Shards that are mapped into memory at a time. What was read of one counts as memory of the process as long as it is
mapped, and mapping it again takes less than 0.1 ms."""
_PART_ROWS = 1 << 14
_SPREAD_ROWS = 1 << 20
"""Rows, spread evenly, from which a median norm or a covariance is taken."""


@dataclass(frozen=True)
class Provenance:
    """Where rows came from: `position` within `example`; `token` is None on grids without tokens."""

    example: Int[Tensor, " batch"]
    position: Int[Tensor, " batch"]
    kind: UInt8[Tensor, " batch"]
    token: Int[Tensor, " batch"] | None = None

    def __len__(self) -> int:
        return len(self.example)

    def first(self, n: int) -> "Provenance":
        """Return the provenance of the first n rows."""
        token = None if self.token is None else self.token[:n]
        return Provenance(self.example[:n], self.position[:n], self.kind[:n], token)


class ActivationStore:
    """A store on disk, complete or not; rows are read when they are asked for.

    Raises:
        StoreError: the folder is no store, is damaged, or has another format version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = Manifest.read(self.path)
        self._map = lru_cache(maxsize=_OPEN_SHARDS)(map_tensors)
        if not self.manifest.complete:
            done, planned = self.manifest.n_shards, self.manifest.n_shards_planned
            logger.warning("%s: incomplete, %d of %d shards; harvest again to finish it", self.path, done, planned)

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.path)!r}, {self.subject_id}, {list(self.hookpoints)})"

    @property
    def subject_id(self) -> str:
        """The subject that was harvested."""
        return self.manifest.subject

    @cached_property
    def hash(self) -> str:
        """The manifest's hash; it stands for every byte of the store."""
        return self.manifest.hash

    @cached_property
    def hookpoints(self) -> dict[str, Hookpoint]:
        """Every hookpoint by name."""
        return {
            name: Hookpoint(name, d_in, grid)
            for grid, entry in self.manifest.grids.items()
            for name, d_in in entry.hookpoints.items()
        }

    @cached_property
    def inputs(self) -> StoredInputs:
        """What shows an example again."""
        return StoredInputs(self.path, self.manifest)

    def vectors(
        self, hookpoint: str, kinds: Collection[Kind] | None = None, max_norm_ratio: float | None = None
    ) -> "Vectors":
        """Return the rows of a hookpoint.

        Args:
            hookpoint: its name.
            kinds: which rows to keep; None keeps all, training uses `TRAINING_KINDS`.
            max_norm_ratio: leave out rows (attention sinks) whose norm is more than this many times the median norm
                of the kept kinds; costs one reading of the hookpoint.

        Raises:
            HookpointError: the store has no such hookpoint.
        """
        point = find_hookpoint(self.hookpoints, hookpoint, str(self.path))
        return Vectors.filtered(self, point, kinds, max_norm_ratio)

    def columns(self, grid: str, shard: int) -> dict[str, Tensor]:
        """Map all tensors of one shard: hookpoints, example, position, kind and, where there is one, token."""
        entry = self.manifest.grids[grid].shards[shard]
        tensors = self._map(self.path / entry.file)
        if len(tensors["example"]) != entry.n_vectors:
            raise StoreError(f"{self.path / entry.file}: {len(tensors['example'])} rows, expected {entry.n_vectors}.")
        return tensors

    def statistics(self, grid: str) -> dict[str, ByKind]:
        """Read the statistics gathered while harvesting: hookpoint -> kind -> summary."""
        entry = self.manifest.grids[grid]
        if entry.statistics is None:
            raise StoreError(f"{self.path}: {grid} holds no vectors yet.")
        return read_statistics(self.path / entry.statistics.file, entry.hookpoints)


class Vectors:
    """Rows of one hookpoint, in the order of their examples; `v[i:j]` keeps the stored dtype, `read` converts."""

    def __init__(self, store: ActivationStore, hookpoint: Hookpoint, index: RowIndex, filters: dict[str, Any]) -> None:
        self.store, self.hookpoint, self.index, self.filters = store, hookpoint, index, filters

    @classmethod
    def filtered(
        cls,
        store: ActivationStore,
        hookpoint: Hookpoint,
        kinds: Collection[Kind] | None,
        max_norm_ratio: float | None,
    ) -> "Vectors":
        """Index the rows that pass the filters."""
        n_rows = [shard.n_vectors for shard in store.manifest.grids[hookpoint.grid].shards]
        filters: dict[str, Any] = {"kinds": None if kinds is None else sorted(kind.name.lower() for kind in kinds)}
        index = RowIndex.all(n_rows)
        if kinds is not None:
            wanted = torch.zeros(len(Kind), dtype=torch.bool)
            wanted[[int(kind) for kind in kinds]] = True
            index = index.keep(lambda shard: wanted[store.columns(hookpoint.grid, shard)["kind"].long()])
        vectors = cls(store, hookpoint, index, filters)
        return vectors if max_norm_ratio is None else vectors._without_sinks(max_norm_ratio)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Vectors({self.hookpoint.name}, {len(self):,} x {self.d_in} {self.store.manifest.dtype})"

    @property
    def parts(self) -> "tuple[Vectors, ...]":
        """The single hookpoints whose vectors these are; here it is one."""
        return (self,)

    @property
    def d_in(self) -> int:
        """Width of a vector."""
        return self.hookpoint.d_in

    @property
    def dtype(self) -> torch.dtype:
        """Stored number format."""
        return getattr(torch, self.store.manifest.dtype)

    def __getitem__(self, rows: slice) -> Shaped[Tensor, "batch d_in"]:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise StoreError(f"{self!r}: rows are read in steps of 1, not {step}.")
        return self.read(start, max(start, stop), self.dtype)

    def read(self, start: int, stop: int, dtype: torch.dtype = torch.float32) -> Shaped[Tensor, "batch d_in"]:
        """Copy rows `start` to `stop` into memory, across shards.

        Raises:
            StoreError: the range is not within the rows.
        """
        if not 0 <= start <= stop <= len(self):
            raise StoreError(f"{self!r}: no rows {start} to {stop}; it has {len(self)}.")
        out = torch.empty(stop - start, self.d_in, dtype=dtype)
        self.read_into(out, start)
        return out

    def read_into(self, out: Shaped[Tensor, "batch d_in"], start: int) -> None:
        """Fill `out` with the rows from `start` on, converted to its dtype."""
        self._fill(out, self.hookpoint.name, start)

    def take(self, rows: Int[Tensor, " n"]) -> Shaped[Tensor, "n d_in"]:
        """Copy single rows, given by rising numbers, in their stored number format.

        Raises:
            StoreError: there are no such rows, or they do not rise.
        """
        if len(rows) and not (int(rows[0]) >= 0 and int(rows[-1]) < len(self) and bool((rows.diff() >= 0).all())):
            raise StoreError(f"{self!r}: rows to take must rise within 0 to {len(self) - 1}.")
        out = torch.empty(len(rows), self.d_in, dtype=self.dtype)
        self._take_into(out, rows)
        return out

    def provenance(self, start: int, stop: int) -> Provenance:
        """Say where rows `start` to `stop` came from."""
        n = stop - start
        example = torch.empty(n, dtype=torch.int64)
        position, token = (torch.empty(n, dtype=torch.int32) for _ in range(2))
        kind = torch.empty(n, dtype=torch.uint8)
        has_token = bool(self.index.n_shards) and "token" in self.store.columns(self.hookpoint.grid, 0)
        columns = {"example": example, "position": position, "kind": kind} | ({"token": token} if has_token else {})
        for name, out in columns.items():
            self._fill(out, name, start)
        return Provenance(example, position, kind, token if has_token else None)

    def whole_examples(self, chunk_vectors: int, limit: int | None = None) -> Iterator[tuple[int, Provenance]]:
        """Cut the rows into chunks that end where an example ends; yields each one's first row and its provenance.

        A chunk grows beyond `chunk_vectors` only for an example that is longer. After `limit` rows the cut is exact.
        """
        total = min(len(self), limit or len(self))
        start = 0
        while start < total:
            size = chunk_vectors
            while True:
                stop = min(start + size, total)
                # The row after the chunk tells whether the chunk's last example goes on.
                rows = self.provenance(start, min(stop + 1, total))
                if stop < total:
                    stop -= int((rows.example[:-1] == rows.example[-1]).sum())
                if stop > start:
                    break
                size *= 2
            yield start, rows.first(stop - start)
            start = stop

    @cached_property
    def statistics(self) -> Statistics:
        """Moments of these rows; free if filtered by kind alone, else one reading."""
        starts = range(0, len(self), _PART_ROWS)
        return self._harvested or self._merged(Statistics.of(self[start : start + _PART_ROWS]) for start in starts)

    @cached_property
    def covariance(self) -> Float64[Tensor, "d_in d_in"]:
        """Covariance of these rows: the harvest's, if that kept it and they are filtered by kind alone.

        Else measured, on at most a million rows spread evenly.
        """
        found = self._harvested
        if found is None or found.covariance is None:
            found = self._merged(Statistics.of(part, covariance=True) for part in self._spread())
        assert found.covariance is not None
        return found.covariance

    @property
    def _harvested(self) -> Statistics | None:
        """The statistics gathered while harvesting, where they are those of these rows."""
        if set(self.filters) != {"kinds"}:
            return None
        found = self.store.statistics(self.hookpoint.grid)[self.hookpoint.name]
        kinds = self.filters["kinds"]
        return self._merged(part for kind, part in found.items() if kinds is None or kind.name.lower() in kinds)

    def _merged(self, parts: Iterable[Statistics]) -> Statistics:
        parts = list(parts)
        if not parts:
            raise StoreError(f"{self!r}: no rows, so no statistics; filters: {self.filters}.")
        return Statistics.merge_all(parts)

    def _spread(self) -> Iterator[Shaped[Tensor, "batch d_in"]]:
        """Yield at most `_SPREAD_ROWS` rows, in parts spread evenly."""
        n_parts = max(1, min(-(-len(self) // _PART_ROWS), _SPREAD_ROWS // _PART_ROWS))
        size = min(_PART_ROWS, len(self))
        for i in range(n_parts if size else 0):
            start = i * (len(self) - size) // max(n_parts - 1, 1)
            yield self[start : start + size]

    def describe(self) -> dict[str, Any]:
        """Return what a dictionary trained on these rows records."""
        left_out = self.store.manifest.grids[self.hookpoint.grid].n_vectors - len(self)
        return {
            "subject": self.store.subject_id,
            "hookpoint": self.hookpoint.name,
            "store": self.store.hash,
            "n_vectors": len(self),
            "n_left_out": left_out,
            "rows": self.filters,
        }

    def restricted(self, index: RowIndex, **filters: Any) -> "Vectors":
        """Return the rows of another index, with what chose them added to the filters."""
        return Vectors(self.store, self.hookpoint, index, self.filters | filters)

    def _fill(self, out: Tensor, column: str, start: int) -> None:
        filled = 0
        for shard, rows in self.index.locate(start, start + len(out)):
            source = self.store.columns(self.hookpoint.grid, shard)[column]
            part = source[rows] if isinstance(rows, slice) else source.index_select(0, rows)
            out[filled : filled + len(part)].copy_(part)
            filled += len(part)

    def _take_into(self, out: Tensor, rows: Tensor) -> None:
        for shard, which, within in self.index.find(rows):
            source = self.store.columns(self.hookpoint.grid, shard)[self.hookpoint.name]
            out[which] = source.index_select(0, within).to(out.dtype)

    def _without_sinks(self, max_norm_ratio: float) -> "Vectors":
        """Leave out rows of extreme norm; the median is that of at most a million rows spread evenly."""
        norms = [part.float().norm(dim=1) for part in self._spread()]
        if not norms:
            raise StoreError(f"{self!r}: no rows, so no median norm; filters: {self.filters}.")
        limit = max_norm_ratio * torch.cat(norms).median().item()

        def small(shard: int) -> Tensor:
            parts = self.store.columns(self.hookpoint.grid, shard)[self.hookpoint.name].split(_PART_ROWS)
            return torch.cat([part.float().norm(dim=1) <= limit for part in parts])

        return self.restricted(self.index.keep(small), max_norm_ratio=max_norm_ratio, max_norm=limit)

"""Putting shards in place, one after another, beside the next forward passes.

One background thread adds up the statistics, hashes and writes. The order of its steps is what makes a harvest
continue after it was killed: the files of a shard, then the statistics up to it, then the manifest that names them,
then the removal of the older statistics. Whatever the manifest does not name is not part of the store and is written
again.
"""

import dataclasses
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sae.activations import examples
from sae.activations.files import locked, map_tensors, tensor_pieces
from sae.activations.manifest import FILE_NAME, FileEntry, GridEntry, Manifest, ShardEntry
from sae.activations.statistics import ByKind, Statistics, merge_kinds
from sae.durable import TEMPORARY, Bytes, write_durably
from sae.errors import StoreError
from sae.tensors import Kind

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.yaml"
"""Where the settings of a harvest are kept, beside what they led to."""


@dataclass(frozen=True)
class Piece:
    """The rows of one batch on one grid, on the host.

    `vectors` and their `summaries` may still be arriving from the device until `arrived` returns.
    """

    columns: dict[str, Tensor]
    vectors: dict[str, Tensor]
    summaries: dict[str, ByKind]
    arrived: Callable[[], None] | None = None


@dataclass(frozen=True)
class Shard:
    """All rows of one fixed range of examples: pieces by grid, in order, and the files that show the examples."""

    index: int
    grids: dict[str, list[Piece]]
    inputs: Mapping[str, Iterator[Bytes]] = field(default_factory=dict)


class StoreWriter:
    """Writes shards in order; at most `queue` of them wait, so memory stays bounded."""

    def __init__(self, store: Path, manifest: Manifest, queue: int, executor: ThreadPoolExecutor) -> None:
        self.store, self.manifest, self.queue = store, manifest, queue
        self._executor = executor
        self._pending: deque[Future[None]] = deque()
        self._statistics = {name: _load_statistics(store, grid) for name, grid in manifest.grids.items()}

    @classmethod
    @contextmanager
    def open(cls, store: Path, manifest: Manifest, queue: int = 2) -> Iterator["StoreWriter"]:
        """Begin a store, or continue one that was begun with the same settings.

        Raises:
            StoreError: the store is in use, was begun with other settings, or is damaged.
        """
        with locked(store), ThreadPoolExecutor(1, "sae-store-writer") as executor:
            writer = cls(store, _continue(store, manifest), queue, executor)
            # Leaving on an error waits for the shards handed over, so that no finished work is lost.
            yield writer
            writer.wait()

    def submit(self, shard: Shard) -> None:
        """Hand a shard over; blocks while the queue is full.

        Raises:
            StoreError: this or an earlier shard could not be written.
        """
        self._pending.append(self._executor.submit(self._write, shard))
        self.wait(self.queue)

    def wait(self, allowed: int = 0) -> None:
        """Block until at most `allowed` shards are not yet in place."""
        while len(self._pending) > allowed:
            self._pending.popleft().result()

    def _write(self, shard: Shard) -> None:
        done = self.manifest.n_shards
        if shard.index != done:
            raise StoreError(f"{self.store}: shard {shard.index} cannot follow, because shard {done} failed.")
        statistics = {name: self._summarise(name, pieces) for name, pieces in shard.grids.items()}
        try:
            grids = {
                name: self._write_grid(shard.index, name, pieces, statistics[name])
                for name, pieces in shard.grids.items()
            }
            files = [
                self._write_file(f"{examples.FOLDER}/{shard.index:06d}{suffix}", pieces)
                for suffix, pieces in shard.inputs.items()
            ]
            inputs = dataclasses.replace(self.manifest.inputs, shards=(*self.manifest.inputs.shards, *files))
            complete = shard.index + 1 == self.manifest.n_shards_planned
            manifest = dataclasses.replace(self.manifest, grids=grids, inputs=inputs, complete=complete)
            manifest.write(self.store)
        except StoreError as error:
            raise StoreError(
                f"{error} The store is valid up to {done} of {self.manifest.n_shards_planned} shards; "
                "the same command continues there."
            ) from error
        old = [grid.statistics for grid in self.manifest.grids.values() if grid.statistics]
        self.manifest, self._statistics = manifest, statistics
        for entry in old:
            (self.store / entry.file).unlink()

    def _summarise(self, grid: str, pieces: list[Piece]) -> dict[str, ByKind]:
        """Carry the statistics over the pieces of a shard, in order; refuse what is not finite."""
        summaries = dict(self._statistics[grid])
        for piece in pieces:
            if piece.arrived:
                piece.arrived()
            for name in piece.vectors:
                summary = piece.summaries[name]
                if not all(part.finite() for part in summary.values()):
                    raise StoreError(_describe_bad(name, piece, self.manifest))
                summaries[name] = merge_kinds(summaries[name], summary)
        return summaries

    def _write_grid(self, index: int, grid: str, pieces: list[Piece], statistics: dict[str, ByKind]) -> GridEntry:
        entry = self.manifest.grids[grid]
        columns = {name: [piece.columns[name] for piece in pieces] for name in pieces[0].columns}
        vectors = {name: [piece.vectors[name] for piece in pieces] for name in entry.hookpoints}
        file = self._write_file(f"{grid}/{index:06d}.safetensors", tensor_pieces(columns | vectors))
        n_vectors = sum(len(part) for part in columns["example"])
        shard = ShardEntry(file=file.file, sha256=file.sha256, n_vectors=n_vectors)
        flat = {
            f"{hookpoint}/{kind.name.lower()}/{name}": [value.cpu()]
            for hookpoint, kinds in statistics.items()
            for kind, summary in kinds.items()
            for name, value in summary.tensors().items()
        }
        # Named by the shards it covers: the old file stays valid until the manifest names the new one.
        summary_file = f"{grid}/statistics-{index + 1:06d}.safetensors"
        summary_entry = self._write_file(summary_file, tensor_pieces(flat)) if flat else None
        return dataclasses.replace(entry, shards=(*entry.shards, shard), statistics=summary_entry)

    def _write_file(self, file: str, pieces: Iterator[Bytes]) -> FileEntry:
        return FileEntry(file=file, sha256=write_durably(self.store / file, pieces, StoreError))


def read_statistics(path: Path, hookpoints: Mapping[str, int]) -> dict[str, ByKind]:
    """Read a statistics file; returns hookpoint -> kind -> summary."""
    grouped: dict[str, dict[Kind, dict[str, Tensor]]] = {name: {} for name in hookpoints}
    for key, value in map_tensors(path).items():
        hookpoint, kind, name = key.rsplit("/", 2)
        grouped[hookpoint].setdefault(Kind[kind.upper()], {})[name] = value.clone()
    return {
        hookpoint: {kind: Statistics.from_tensors(kinds[kind]) for kind in sorted(kinds)}
        for hookpoint, kinds in grouped.items()
    }


def _load_statistics(store: Path, grid: GridEntry) -> dict[str, ByKind]:
    if grid.statistics is None:
        return {name: {} for name in grid.hookpoints}
    return read_statistics(store / grid.statistics.file, grid.hookpoints)


def _continue(store: Path, manifest: Manifest) -> Manifest:
    """Return where the store stands: the new manifest, or the one found, if it was begun alike."""
    if not (store / FILE_NAME).exists():
        strangers = [path.name for path in store.iterdir() if not path.name.startswith(".") and path.is_file()]
        strangers = [name for name in strangers if not name.endswith(TEMPORARY) and name != CONFIG_NAME]
        if strangers:
            raise StoreError(f"{store}: not an activation store, and not empty: it holds {sorted(strangers)[0]}.")
        manifest.write(store)
        return manifest
    found = Manifest.read(store)
    if differences := found.differences(manifest):
        listed = "; ".join(differences[:6]) + ("; ..." if len(differences) > 6 else "")
        raise StoreError(f"{store}: was begun with other settings: {listed}. Use them again, or another folder.")
    known = {store / entry.file for entry in found.files()}
    if missing := sorted(str(path) for path in known if not path.is_file()):
        raise StoreError(f"{store}: {missing[0]} is missing, though the manifest names it; the store is damaged.")
    leftovers = [path for path in store.rglob("*") if path.suffix == TEMPORARY or path.name.startswith("statistics-")]
    for path in leftovers:
        if path not in known:
            path.unlink()
    if found.n_shards and not found.complete:
        logger.info("%s: continuing after shard %d of %d", store, found.n_shards, found.n_shards_planned)
    return found


def _describe_bad(hookpoint: str, piece: Piece, manifest: Manifest) -> str:
    row = int((~torch.isfinite(piece.vectors[hookpoint])).any(1).nonzero()[0])
    example, position = int(piece.columns["example"][row]), int(piece.columns["position"][row])
    return (
        f"{manifest.subject}: {hookpoint} is not finite in {manifest.dtype} at example {example}, position {position}. "
        f"The store is valid up to {manifest.n_shards} of {manifest.n_shards_planned} shards."
    )

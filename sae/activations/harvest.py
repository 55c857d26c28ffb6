"""Run a subject over inputs once and keep the vectors at chosen hookpoints."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sae import config as configs
from sae.activations import examples
from sae.activations.harvest_config import HarvestConfig
from sae.activations.manifest import Environment, GridEntry, InputsEntry, Manifest
from sae.activations.planning import Plan, check_space, estimate
from sae.activations.rows import Selection, check_rows, select
from sae.activations.statistics import by_kind
from sae.activations.store import ActivationStore
from sae.activations.writer import CONFIG_NAME, Piece, Shard, StoreWriter
from sae.errors import StoreError
from sae.log import progress
from sae.subjects.base import Hookpoint, Subject, find_hookpoint
from sae.tensors import Batch

logger = logging.getLogger(__name__)


def harvest(subject: Subject, inputs: Any, config: HarvestConfig) -> ActivationStore:
    """Fill a store, or go on where an earlier harvest with the same settings stopped.

    Killed at any point, a harvest that is run again ends with the same bytes as one that was never killed, on the same
    kind of machine with the same number of threads and library versions.

    Raises:
        StoreError: the disk is or would be full, the folder cannot be written or holds something else, the subject
            returned a wrong shape or a value that is not finite. Shards in place stay valid.
    """
    reader = _Reader(subject, inputs, config)
    with StoreWriter.open(config.out, reader.manifest(), config.queue) as writer:
        # The store's own manifest tells what is in it; this file lets later commands open the same inputs again.
        configs.save(config, config.out / CONFIG_NAME)
        done, total = writer.manifest.n_shards, writer.manifest.n_shards_planned
        if done < total:
            remaining = (total - done) * config.shard_examples
            check_space(estimate(subject, inputs, config, reader.grids), config.out, remaining)
        with progress("harvest", total=len(inputs), unit="examples") as bar:
            bar.skip(min(done * config.shard_examples, len(inputs)))
            for index in range(done, total):
                writer.submit(reader.shard(index, bar))
    return ActivationStore(config.out)


def plan(subject: Subject, inputs: Any, config: HarvestConfig) -> Plan:
    """Say what a harvest would take in rows, bytes and, from a few batches, hours; writes nothing."""
    reader = _Reader(subject, inputs, config)
    return estimate(subject, inputs, config, reader.grids, timed=True)


class _Reader:
    """Turns ranges of examples into shards."""

    def __init__(self, subject: Subject, inputs: Any, config: HarvestConfig) -> None:
        if not len(inputs):
            raise StoreError(f"{config.out}: the inputs hold no examples.")
        self.subject, self.inputs, self.config = subject, inputs, config
        known = subject.hookpoints()
        points = [find_hookpoint(known, name, subject.id) for name in config.hookpoints]
        self.grids: dict[str, list[Hookpoint]] = {}
        for point in points:
            self.grids.setdefault(point.grid, []).append(point)
        self.dtype: torch.dtype = getattr(torch, config.dtype)

    def manifest(self) -> Manifest:
        """Describe the store that is about to be written."""
        config = self.config
        return Manifest(
            subject=self.subject.id,
            provenance=self.subject.provenance(),
            inputs=InputsEntry(
                fingerprint=self.inputs.fingerprint,
                description=self.inputs.describe(),
                n_examples=len(self.inputs),
            ),
            dtype=config.dtype,
            batch_examples=config.batch_examples,
            shard_examples=config.shard_examples,
            rows_per_example=config.rows_per_example,
            covariance=config.covariance,
            environment=Environment.current(config.device),
            grids={
                name: GridEntry(hookpoints={point.name: point.d_in for point in points})
                for name, points in self.grids.items()
            },
        )

    def shard(self, index: int, bar: Any) -> Shard:
        """Run the subject over the examples of a shard."""
        start = index * self.config.shard_examples
        stop = min(start + self.config.shard_examples, len(self.inputs))
        pieces: dict[str, list[Piece]] = {name: [] for name in self.grids}
        batches = []
        for first in range(start, stop, self.config.batch_examples):
            batch = self.inputs.batch(first, min(first + self.config.batch_examples, stop))
            activations = self.subject.run(batch, self.config.hookpoints)
            for grid, points in self.grids.items():
                pieces[grid].append(self._piece(batch, first, grid, points, activations))
            batches.append(batch)
            bar.advance(len(batch))
        return Shard(index, pieces, examples.shard_files(batches, self.inputs, start, stop))

    def _piece(
        self, batch: Batch, first: int, grid: str, points: list[Hookpoint], activations: Mapping[str, Tensor]
    ) -> Piece:
        rows = self.subject.rows(batch, grid)
        check_rows(rows, len(batch), f"{self.subject.id}, {grid}")
        selection = select(rows, first, self.config.rows_per_example)
        vectors = {
            point.name: _gather(self._checked(activations, point, tuple(rows.keep.shape)), selection, self.dtype)
            for point in points
        }
        device = next(iter(vectors.values())).device
        kinds = selection.columns["kind"]
        # Here rather than in the writer's thread, where a second team of OpenMP threads would fight the subject's.
        summaries = {name: by_kind(value, kinds, self.config.covariance) for name, value in vectors.items()}
        if device.type != "cuda":
            return Piece(selection.columns, vectors, summaries)
        summaries = {
            name: {kind: summary.moved(_to_host) for kind, summary in of_kinds.items()}
            for name, of_kinds in summaries.items()
        }
        host = {name: _to_host(value) for name, value in vectors.items()}
        arrived = torch.cuda.Event()
        # The copies are queued on the subject's device, which need not be the current one.
        arrived.record(torch.cuda.current_stream(device))
        return Piece(selection.columns, host, summaries, arrived.synchronize)

    def _checked(self, activations: Mapping[str, Tensor], point: Hookpoint, shape: tuple[int, ...]) -> Tensor:
        if point.name not in activations:
            raise StoreError(f"{self.subject.id}: returned nothing for {point.name}; it returned {list(activations)}.")
        value = activations[point.name]
        if tuple(value.shape) != (*shape, point.d_in):
            raise StoreError(
                f"{self.subject.id}: {point.name} is {list(value.shape)}, needed {[*shape, point.d_in]} "
                "(example, pos, d_in)."
            )
        return value


def _gather(activation: Tensor, selection: Selection, dtype: torch.dtype) -> Tensor:
    """Return the chosen rows in the stored dtype, converted where they lie; copies no more than that needs.

    A float32 activation that is kept whole and as it is must still be copied: the subject may reuse its memory.
    """
    vectors = activation.detach().flatten(0, 1)
    if selection.flat is not None:
        vectors = vectors.index_select(0, selection.flat.to(vectors.device, non_blocking=True))
        return vectors.to(dtype)
    return vectors.to(dtype, copy=True)


def _to_host(value: Tensor) -> Tensor:
    """Start a copy from the GPU into pinned memory; complete when an event recorded after it has passed."""
    host = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return host.copy_(value, non_blocking=True)

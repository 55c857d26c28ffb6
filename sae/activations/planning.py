"""What a harvest will take, before it takes it."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sae.activations.harvest_config import HarvestConfig
from sae.activations.rows import check_rows, select
from sae.errors import StoreError
from sae.subjects.base import Hookpoint, Subject

_SAMPLED_BATCHES = 4
_ROW_BYTES = 17
"""Example (8), position (4), token (4) and kind (1) of a row."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a harvest, projected from a few batches spread over the inputs; exact where all have equal length."""

    n_examples: int
    n_shards: int
    rows: dict[str, int]
    """Rows per grid."""
    n_bytes: int
    free_bytes: int
    shard_bytes: int
    """Bytes of one shard; about queue + 1 of them are held in memory."""
    seconds: float | None
    """Time of the forward passes; None where none was timed."""

    @property
    def hours(self) -> float | None:
        """Time of the forward passes in hours."""
        return None if self.seconds is None else self.seconds / 3600


def estimate(
    subject: Subject,
    inputs: Any,
    config: HarvestConfig,
    grids: Mapping[str, Sequence[Hookpoint]],
    timed: bool = False,
) -> Plan:
    """Count the rows of a few batches and, if asked, time their forward passes (after one that is not counted)."""
    n_examples, size = len(inputs), config.batch_examples
    n_batches = -(-n_examples // size)
    chosen = sorted({i * n_batches // _SAMPLED_BATCHES for i in range(_SAMPLED_BATCHES)})
    seen, rows, seconds = 0, dict.fromkeys(grids, 0), []
    if timed:
        subject.run(inputs.batch(0, min(size, n_examples)), config.hookpoints)
    for index in chosen:
        started = time.perf_counter()
        batch = inputs.batch(index * size, min((index + 1) * size, n_examples))
        if timed:
            subject.run(batch, config.hookpoints)
            if torch.device(config.device).type == "cuda":
                torch.cuda.synchronize(config.device)
        seconds.append((time.perf_counter() - started) / len(batch))
        seen += len(batch)
        for grid in grids:
            found = subject.rows(batch, grid)
            check_rows(found, len(batch), f"{subject.id}, {grid}")
            rows[grid] += len(select(found, index * size, config.rows_per_example))
    rows = {grid: round(n * n_examples / seen) for grid, n in rows.items()}
    item = getattr(torch, config.dtype).itemsize
    n_bytes = sum(n * (_ROW_BYTES + item * sum(point.d_in for point in grids[grid])) for grid, n in rows.items())
    return Plan(
        n_examples=n_examples,
        n_shards=-(-n_examples // config.shard_examples),
        rows=rows,
        n_bytes=n_bytes,
        free_bytes=free_bytes(config.out),
        shard_bytes=n_bytes * min(config.shard_examples, n_examples) // n_examples,
        seconds=sum(seconds) / len(seconds) * n_examples if timed else None,
    )


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder lies on or will lie on."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_space(plan: Plan, folder: Path, n_examples: int) -> None:
    """Refuse to start what the disk cannot hold; `n_examples` are still to be read.

    Raises:
        StoreError: says how much is needed and how much is free.
    """
    needed = plan.n_bytes * min(n_examples, plan.n_examples) // plan.n_examples
    if needed > plan.free_bytes:
        raise StoreError(
            f"{folder}: needs about {needed / 1e9:.2f} GB and {plan.free_bytes / 1e9:.2f} GB are free. "
            "Read fewer hookpoints or examples, sample rows_per_example, or choose another disk."
        )

"""What a store says about itself: `manifest.json`.

It names everything that decides the store's bytes (subject, inputs, dtype, shapes of the batches, library versions,
threads) and every file with its hash, and nothing else: no time, no host, no path. Two harvests of the same thing on
the same kind of machine have equal manifests, and the manifest's own hash stands for the whole store.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy
import torch

from sae import __version__, config
from sae.durable import write_durably
from sae.errors import ConfigError, StoreError

FORMAT_VERSION = 1
FILE_NAME = "manifest.json"

Dtype = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the store: its path within the store, with slashes, and its sha256."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry(FileEntry):
    """The rows of one grid for one fixed range of examples."""

    n_vectors: int


@dataclass(frozen=True, kw_only=True)
class GridEntry:
    """Hookpoints that lie on the same rows, with their widths; `statistics` covers all shards listed."""

    hookpoints: dict[str, int]
    shards: tuple[ShardEntry, ...] = ()
    statistics: FileEntry | None = None

    @property
    def n_vectors(self) -> int:
        """Rows in all shards."""
        return sum(shard.n_vectors for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class InputsEntry:
    """What was read: fingerprint, description, number of examples, and the files that show an example again."""

    fingerprint: str
    description: dict[str, Any]
    n_examples: int
    shards: tuple[FileEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What else decides the last bits: library versions, threads, kind of processor and device."""

    libraries: dict[str, str]
    threads: int
    processor: str
    device: str

    @classmethod
    def current(cls, device: str) -> Self:
        """Describe the running process."""
        modules = {"torch": torch, "numpy": numpy}
        on_gpu = torch.device(device).type == "cuda"
        return cls(
            libraries={"sae": __version__, "python": platform.python_version()}
            | {name: module.__version__ for name, module in modules.items()},
            threads=torch.get_num_threads(),
            processor=f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            device=torch.cuda.get_device_name(device) if on_gpu else torch.device(device).type,
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of `manifest.json`; `complete` is False until the last shard is in place."""

    subject: str
    provenance: dict[str, Any]
    inputs: InputsEntry
    dtype: Dtype
    batch_examples: int
    shard_examples: int
    rows_per_example: int | None
    covariance: bool
    environment: Environment
    grids: dict[str, GridEntry]
    complete: bool = False
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def n_shards(self) -> int:
        """Shards in place, the same number in every grid."""
        return min(len(grid.shards) for grid in self.grids.values())

    @property
    def n_shards_planned(self) -> int:
        """Shards of the finished store."""
        return -(-self.inputs.n_examples // self.shard_examples)

    def files(self) -> Iterator[FileEntry]:
        """List every file that the manifest answers for."""
        for grid in self.grids.values():
            yield from grid.shards
            if grid.statistics:
                yield grid.statistics
        yield from self.inputs.shards

    def text(self) -> str:
        """Return the canonical JSON: sorted keys, one entry a line."""
        try:
            return json.dumps(config.encode(self), sort_keys=True, indent=1, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise StoreError(
                f"{FILE_NAME}: the subject's or the inputs' description is not plain JSON: {error}."
            ) from error

    @property
    def hash(self) -> str:
        """Return the sha256 of the canonical JSON; it stands for every file of the store."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def write(self, store: Path) -> None:
        """Put the manifest in place, durably."""
        write_durably(store / FILE_NAME, [self.text().encode()], StoreError)

    @classmethod
    def read(cls, store: Path) -> Self:
        """Read and validate a store's manifest.

        Raises:
            StoreError: there is none, it is damaged, or another version of the format wrote it.
        """
        path = store / FILE_NAME
        if not path.is_file():
            raise StoreError(f"{store}: not an activation store; it has no {FILE_NAME}.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: damaged: {error}.") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise StoreError(f"{path}: format version {version!r}; this version of sae reads {FORMAT_VERSION}.")
        try:
            return config.decode(cls, data, where=str(path))
        except ConfigError as error:
            raise StoreError(str(error)) from error

    def differences(self, other: Self) -> list[str]:
        """Name what would make the two stores differ, as "field: this, other"."""
        ours, theirs = _flatten(_plan(self)), _flatten(_plan(other))
        keys = sorted(ours.keys() | theirs.keys())
        return [
            f"{key}: {ours.get(key)!r}, now {theirs.get(key)!r}" for key in keys if ours.get(key) != theirs.get(key)
        ]


def _plan(manifest: Manifest) -> dict[str, Any]:
    """Return what was decided before the first shard."""
    empty = {name: GridEntry(hookpoints=grid.hookpoints) for name, grid in manifest.grids.items()}
    inputs = dataclasses.replace(manifest.inputs, shards=())
    # Through JSON, so that what was read back compares with what is about to be written.
    return json.loads(dataclasses.replace(manifest, grids=empty, inputs=inputs, complete=False).text())


def _flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat

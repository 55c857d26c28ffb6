"""Checking a store against its manifest, and summing it up."""

from pathlib import Path
from typing import Any

from sae.activations.files import hash_file
from sae.activations.store import ActivationStore
from sae.errors import StoreError
from sae.log import track


def verify(path: Path) -> ActivationStore:
    """Read every file again: its hash, its shapes, its number of rows, and the statistics' counts.

    Raises:
        StoreError: lists every file that is missing or damaged, and what is wrong with it.
    """
    store = ActivationStore(path)
    bad: dict[str, str] = {}
    for entry in track(list(store.manifest.files()), "verify", unit="files"):
        file = store.path / entry.file
        if not file.is_file():
            bad[entry.file] = "missing"
        elif hash_file(file) != entry.sha256:
            bad[entry.file] = "its bytes are not those that were written"
    for name, grid in store.manifest.grids.items():
        for shard, entry in enumerate(grid.shards):
            if entry.file not in bad and (problem := _shapes(store, name, shard)):
                bad[entry.file] = problem
        if grid.statistics and grid.statistics.file not in bad:
            for hookpoint, kinds in store.statistics(name).items():
                counted = sum(summary.count for summary in kinds.values())
                if counted != grid.n_vectors:
                    bad[grid.statistics.file] = f"{hookpoint} counts {counted} rows, the shards {grid.n_vectors}"
    if bad:
        listed = "\n".join(f"  {file}: {problem}" for file, problem in bad.items())
        raise StoreError(f"{store.path}: {len(bad)} of {len(list(store.manifest.files()))} files are bad:\n{listed}")
    return store


def info(path: Path) -> dict[str, Any]:
    """Sum a store up in plain data, for `sae info`; reads the manifest and the statistics only."""
    store = ActivationStore(path)
    manifest = store.manifest
    hookpoints = {}
    for name, point in store.hookpoints.items():
        row: dict[str, Any] = {"grid": point.grid, "d_in": point.d_in}
        row["n_vectors"] = manifest.grids[point.grid].n_vectors
        if row["n_vectors"]:
            statistics = store.vectors(name).statistics
            row["mean_norm"] = statistics.mean_norm
            row["mean_variance"] = statistics.variance.mean().item()
        hookpoints[name] = row
    return {
        "path": str(store.path),
        "hash": store.hash,
        "complete": manifest.complete,
        "subject": manifest.subject,
        "inputs": manifest.inputs.description,
        "n_examples": manifest.inputs.n_examples,
        "n_shards": manifest.n_shards,
        "n_shards_planned": manifest.n_shards_planned,
        "dtype": manifest.dtype,
        "rows_per_example": manifest.rows_per_example,
        "n_bytes": sum((store.path / entry.file).stat().st_size for entry in manifest.files()),
        "hookpoints": hookpoints,
    }


def _shapes(store: ActivationStore, grid: str, shard: int) -> str | None:
    """Say what is wrong with a shard's tensors, if anything."""
    try:
        tensors = store.columns(grid, shard)
    except StoreError as error:
        return str(error)
    entry = store.manifest.grids[grid]
    n = entry.shards[shard].n_vectors
    needed = {name: (n, d_in) for name, d_in in entry.hookpoints.items()}
    needed |= dict.fromkeys(("example", "position", "kind"), (n,))
    for name, shape in needed.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            found = list(tensors[name].shape) if name in tensors else "nothing"
            return f"{name} is {found}, needed {list(shape)}"
    return None

"""What shows an example again: its token ids, or a reference to its image.

Lies in `STORE/inputs/`, one file per shard: token ids as safetensors (`tokens` int32 of all examples after one
another, `offsets` int64 where each begins), references as JSON.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from sae.activations.files import map_tensors, tensor_pieces
from sae.activations.manifest import Manifest
from sae.durable import Bytes
from sae.errors import StoreError
from sae.tensors import Batch

FOLDER = "inputs"
_OPEN_SHARDS = 64


@runtime_checkable
class Referencing(Protocol):
    """Inputs whose examples lie elsewhere, as images do."""

    def references(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return plain JSON from which each example can be found and framed again."""
        ...


def token_pieces(batches: Iterable[Batch]) -> Iterator[Bytes]:
    """Yield the token file of a shard; positions count from the batch's first column, padding at the end is cut off."""
    tokens: list[Tensor] = []
    for batch in batches:
        assert batch.tokens is not None
        for row in range(len(batch)):
            ids = batch.tokens[row].cpu().to(torch.int32)
            attended = None if batch.attended is None else batch.attended[row].nonzero()
            end = len(ids) if attended is None else (int(attended[-1]) + 1 if len(attended) else 0)
            tokens.append(ids[:end])
    offsets = torch.tensor([0, *(len(ids) for ids in tokens)]).cumsum(0)
    yield from tensor_pieces({"tokens": [torch.cat(tokens)], "offsets": [offsets]})


def reference_pieces(references: list[dict[str, Any]]) -> Iterator[Bytes]:
    """Yield the reference file of a shard."""
    yield (json.dumps(references, sort_keys=True, ensure_ascii=False, indent=0) + "\n").encode()


def shard_files(batches: list[Batch], inputs: Any, start: int, stop: int) -> Mapping[str, Iterator[Bytes]]:
    """Return the suffix and contents of the files that show examples `start` to `stop` again."""
    files: dict[str, Iterator[Bytes]] = {}
    if all(batch.tokens is not None for batch in batches):
        files[".safetensors"] = token_pieces(batches)
    if isinstance(inputs, Referencing):
        files[".json"] = reference_pieces(inputs.references(start, stop))
    return files


class StoredInputs:
    """The examples behind a store's rows."""

    def __init__(self, store: Path, manifest: Manifest) -> None:
        self._store, self._manifest = store, manifest
        self._files = {entry.file for entry in manifest.inputs.shards}
        self._map = lru_cache(maxsize=_OPEN_SHARDS)(map_tensors)
        self._read = lru_cache(maxsize=_OPEN_SHARDS)(lambda path: json.loads(path.read_text(encoding="utf-8")))

    def __len__(self) -> int:
        """Return the number of examples of the finished store."""
        return self._manifest.inputs.n_examples

    @property
    def description(self) -> dict[str, Any]:
        """What the inputs said of themselves."""
        return self._manifest.inputs.description

    def tokens(self, example: int) -> Int[Tensor, " pos"]:
        """Return the token ids of an example, indexed by the position of its rows.

        Raises:
            StoreError: the store has no such example, or none of its tokens.
        """
        path, row = self._find(example, ".safetensors", "token ids")
        tensors = self._map(path)
        start, end = tensors["offsets"][row : row + 2].tolist()
        return tensors["tokens"][start:end].clone()

    def reference(self, example: int) -> dict[str, Any]:
        """Return where an example's image lies and how it was framed.

        Raises:
            StoreError: the store has no such example, or no references.
        """
        path, row = self._find(example, ".json", "references")
        return self._read(path)[row]

    def _find(self, example: int, suffix: str, what: str) -> tuple[Path, int]:
        n_here = min(len(self), self._manifest.n_shards * self._manifest.shard_examples)
        if not 0 <= example < n_here:
            raise StoreError(f"{self._store}: no example {example}; it holds 0 to {n_here - 1}.")
        shard, row = divmod(example, self._manifest.shard_examples)
        file = f"{FOLDER}/{shard:06d}{suffix}"
        if file not in self._files:
            raise StoreError(f"{self._store}: keeps no {what} of its inputs.")
        return self._store / file, row

"""Every firing of every latent, on disk, sorted by latent: the one pass over a store that a catalog is made from.

    FOLDER/000000.safetensors   one segment, a fixed range of rows of the store:
                                `offsets` int64 [d_sae + 1]; latent i has the entries `offsets[i]:offsets[i + 1]`,
                                `rows` int32 [nnz], counted from the segment's first row and rising within a latent,
                                `values` float32 [nnz], all above zero

Vectors are encoded row by row as they lie, then the segment is turned round, so that a few latents can be read with all
of their firings whatever the number of rows. A segment is there whole or not at all, so a pass that was cut off goes
on at the next one. It takes eight bytes a firing: at 32 latents a vector an eighth of what bfloat16 vectors of width
1024 take.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from sae.activations.files import map_tensors, tensor_pieces
from sae.activations.store import Vectors
from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.dictionaries.linear import Linear
from sae.durable import write_durably
from sae.errors import CatalogError, StoreError
from sae.log import progress

logger = logging.getLogger(__name__)

SEGMENT_ROWS = 1 << 16
DENSE_SEGMENT_ENTRIES = 1 << 24
READ_ENTRIES = 1 << 23
"""Firings to hold in memory at a time, if no single latent has more."""


@dataclass(frozen=True)
class Firings:
    """All firings of a range of latents, by latent and then by row: those of the i-th are `offsets[i]:offsets[i + 1]`.

    Attributes:
        latents: which ones.
        n_rows: rows that were encoded.
        rows: row of each firing.
        values: activation of each firing, above zero.
    """

    latents: range
    n_rows: int
    offsets: Int64[np.ndarray, " latents_plus_1"]
    rows: Int64[np.ndarray, " nnz"]
    values: Float32[np.ndarray, " nnz"]

    @cached_property
    def counts(self) -> Int64[np.ndarray, " latents"]:
        """Firings of each latent."""
        return np.diff(self.offsets)

    @cached_property
    def latent(self) -> Int64[np.ndarray, " nnz"]:
        """Latent of each firing, counted from the first of the range."""
        return np.repeat(np.arange(len(self.latents)), self.counts)

    @cached_property
    def places(self) -> Int64[np.ndarray, " nnz"]:
        """One rising number per firing, `latent * n_rows + row`."""
        return self.latent * self.n_rows + self.rows


class Record:
    """The firings of a dictionary on some rows, kept in a folder.

    Raises:
        CatalogError: a segment is missing or damaged.
    """

    def __init__(self, folder: Path, n_rows: int, segment_rows: int) -> None:
        self.folder, self.n_rows, self.segment_rows = folder, n_rows, segment_rows
        offsets = [self._segment(number)["offsets"].numpy() for number in range(-(-n_rows // segment_rows))]
        self._offsets = np.stack(offsets)

    @cached_property
    def counts(self) -> Int64[np.ndarray, " d_sae"]:
        """Firings of each latent."""
        return np.diff(self._offsets, axis=1).sum(0)

    def ranges(self, latents: range) -> Iterator[range]:
        """Cut a range of latents into such as can be read at a time."""
        start, entries = latents.start, 0
        for latent in latents:
            entries += int(self.counts[latent])
            if entries > READ_ENTRIES and latent > start:
                yield range(start, latent)
                start, entries = latent, int(self.counts[latent])
        if start < latents.stop:
            yield range(start, latents.stop)

    def of(self, latents: range) -> Firings:
        """Read all firings of a range of latents."""
        bounds = self._offsets[:, latents.start : latents.stop + 1]
        counts = np.diff(bounds, axis=1)
        offsets = np.concatenate([[0], counts.sum(0).cumsum()])
        # Where the entries of each segment begin among those of their latent.
        begins = offsets[:-1] + counts.cumsum(0) - counts
        rows, values = np.empty(offsets[-1], dtype=np.int64), np.empty(offsets[-1], dtype=np.float32)
        for number, (bound, count, begin) in enumerate(zip(bounds, counts, begins, strict=True)):
            segment, here = self._segment(number), slice(int(bound[0]), int(bound[-1]))
            to = np.repeat(begin - (bound[:-1] - bound[0]), count) + np.arange(bound[-1] - bound[0])
            rows[to] = segment["rows"][here].numpy() + np.int64(number * self.segment_rows)
            values[to] = segment["values"][here].numpy()
        return Firings(latents, self.n_rows, offsets, rows, values)

    def _segment(self, number: int) -> dict[str, Tensor]:
        path = segment_path(self.folder, number)
        try:
            return map_tensors(path)  # mapped anew each time, so that what was read is not held
        except StoreError as cause:
            raise CatalogError(
                f"{path}: cannot be read ({cause}); build the catalog again to go on from here."
            ) from cause


def record(
    dictionary: Dictionary, vectors: Vectors, folder: Path, chunk_vectors: int = 1024, n_rows: int | None = None
) -> Record:
    """Encode all rows once, or the first ones, and keep what fires; segments that are there are left as they are.

    Memory is that of one segment, 65,536 rows, fewer for dictionaries whose codes are dense.

    Raises:
        CatalogError: there are no rows, or the disk has no room.
    """
    if not len(vectors):
        raise CatalogError(f"{vectors!r}: no rows to look at.")
    size, n_rows = segment_rows(dictionary), min(n_rows or len(vectors), len(vectors))
    starts = range(0, n_rows, size)
    with progress("encode", total=n_rows, unit="vectors") as bar:
        for number, start in enumerate(starts):
            path, stop = segment_path(folder, number), min(start + size, n_rows)
            if is_whole(path, dictionary.d_sae):
                bar.skip(stop - start)
                continue
            parts = []
            for first in range(start, stop, chunk_vectors):
                x = vectors.read(first, min(first + chunk_vectors, stop))
                with torch.no_grad():
                    parts.append(positive(dictionary.encode(x.to(dictionary.W_dec.device)).to("cpu")))
                bar.advance(len(x))
            write_durably(path, tensor_pieces(by_latent(Codes.cat(parts))), CatalogError)
            _check_room(path, len(starts) - number - 1)
    return Record(folder, n_rows, size)


def segment_rows(dictionary: Dictionary) -> int:
    """Return the rows of a segment."""
    dense = DENSE_SEGMENT_ENTRIES // dictionary.d_sae
    return min(SEGMENT_ROWS, max(dense, 1)) if isinstance(dictionary, Linear) else SEGMENT_ROWS


def segment_path(folder: Path, number: int) -> Path:
    """Return where the segment of that number lies, or will."""
    return folder / f"{number:06d}.safetensors"


def is_whole(path: Path, d_sae: int) -> bool:
    """Say whether a segment is there and readable; a damaged one is told of and made again."""
    if not path.is_file():
        return False
    try:
        return len(map_tensors(path)["offsets"]) == d_sae + 1
    except StoreError as cause:
        logger.warning("%s; it is made again.", cause)
        return False


def positive(codes: Codes) -> Codes:
    """Leave out entries that are not above zero."""
    keep = codes.values > 0
    offsets = torch.cat([codes.offsets.new_zeros(1), keep.cumsum(0)])[codes.offsets]
    return Codes(offsets, codes.indices[keep], codes.values[keep].float(), codes.d_sae)


def by_latent(codes: Codes) -> dict[str, list[Tensor]]:
    """Return the tensors of a segment's file."""
    from scipy.sparse import csr_array

    # Turning sparse rows into sparse columns is a counting sort, a tenth of the time of a sort by comparison.
    held = (codes.values.numpy(), codes.indices.numpy(), codes.offsets.numpy())
    columns = csr_array(held, shape=(len(codes.offsets) - 1, codes.d_sae)).tocsc()
    offsets, rows = torch.tensor(columns.indptr, dtype=torch.int64), torch.tensor(columns.indices, dtype=torch.int32)
    return {"offsets": [offsets], "rows": [rows], "values": [torch.tensor(columns.data)]}


def _check_room(path: Path, n_left: int) -> None:
    needed, free = path.stat().st_size * n_left, shutil.disk_usage(path.parent).free
    if needed > free:
        raise CatalogError(
            f"{path.parent}: about {needed / 1e9:.1f} GB are needed for the firings of the rows still to come, "
            f"{free / 1e9:.1f} GB are free; they are removed once the cards are made."
        )

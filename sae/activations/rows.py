"""Which positions of a batch become rows of a grid."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sae.errors import StoreError
from sae.tensors import Rows

_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of SplitMix64 (Steele, Lea, Flood: *Fast Splittable Pseudorandom Number Generators*, 2014)."""


@dataclass(frozen=True)
class Selection:
    """The chosen rows of one batch on one grid, on the CPU; `flat` indexes [example * pos], None for all of it."""

    flat: Int[Tensor, " batch"] | None
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.columns["example"])


def select(rows: Rows, first_example: int, rows_per_example: int | None) -> Selection:
    """Choose the rows of a batch and say where each came from.

    Args:
        rows: what the subject says exists.
        first_example: index of the batch's first example in its source.
        rows_per_example: keep at most this many of each example, a sample that depends on nothing but the example's
            index and the position; None keeps all.

    Returns:
        Columns `example` int64, `position` int32, `kind` uint8 and, where there are tokens, `token` int32.
    """
    keep = rows.keep.cpu()
    if rows_per_example is not None:
        keep = keep & sample(keep, first_example, rows_per_example)
    example, position = keep.nonzero(as_tuple=True)
    columns = {
        "example": example + first_example,
        "position": position.to(torch.int32),
        "kind": rows.kind.cpu()[keep].to(torch.uint8),
    }
    if rows.token is not None:
        columns["token"] = rows.token.cpu()[keep].to(torch.int32)
    flat = None if bool(keep.all()) else keep.flatten().nonzero().squeeze(1)
    return Selection(flat, columns)


def sample(keep: Bool[Tensor, "example pos"], first_example: int, rows_per_example: int) -> Bool[Tensor, "example pos"]:
    """Mark `rows_per_example` kept positions of each example, or all where it has fewer."""
    n_examples, n_positions = keep.shape
    examples = np.arange(first_example, first_example + n_examples, dtype=np.uint64)[:, None]
    score = scramble(scramble(examples) + np.arange(n_positions, dtype=np.uint64)[None, :])
    score[~keep.numpy()] = np.iinfo(np.uint64).max
    rank = score.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return torch.from_numpy(rank < rows_per_example)


def scramble(x: np.ndarray) -> np.ndarray:
    """Turn counters into 64 well mixed bits (SplitMix64)."""
    with np.errstate(over="ignore"):
        x = x * np.uint64(_STEP) + np.uint64(_STEP)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_MIX_1)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_MIX_2)
    return x ^ (x >> np.uint64(31))


def check_rows(rows: Rows, n_examples: int, where: str) -> None:
    """Refuse rows whose shapes do not fit the batch.

    Raises:
        StoreError: names the shape found and the one needed.
    """
    shape = tuple(rows.keep.shape)
    named = {"kind": rows.kind, **({} if rows.token is None else {"token": rows.token})}
    if len(shape) != 2 or shape[0] != n_examples:
        raise StoreError(f"{where}: rows.keep is {list(shape)}, needed [{n_examples} pos].")
    for name, values in named.items():
        if tuple(values.shape) != shape:
            raise StoreError(f"{where}: rows.{name} is {list(values.shape)}, but rows.keep is {list(shape)}.")

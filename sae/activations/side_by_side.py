"""Vectors of several hookpoints as one: what crosscoders read."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from sae.activations.index import RowIndex
from sae.activations.join import on_the_same_rows
from sae.activations.store import Vectors
from sae.errors import StoreError
from sae.subjects.base import Hookpoint


class SideBySide(Vectors):
    """Row i holds row i of every part, one after the other; the parts must be aligned (see `join.align`).

    Positions and tokens are those of the first part.

    Raises:
        StoreError: the parts lie on different rows.
    """

    def __init__(self, parts: Sequence[Vectors]) -> None:
        first = parts[0]
        for other in parts[1:]:
            if not on_the_same_rows(first, other):
                raise StoreError(f"{first!r} and {other!r} lie on different rows; align them with join().")
        name = " + ".join(dict.fromkeys(part.hookpoint.name for part in parts))
        hookpoint = Hookpoint(name, sum(part.d_in for part in parts), first.hookpoint.grid)
        super().__init__(first.store, hookpoint, first.index, first.filters | {"side_by_side": len(parts)})
        self._parts = tuple(parts)

    @property
    def parts(self) -> tuple[Vectors, ...]:
        """The vectors of each hookpoint."""
        return self._parts

    @property
    def dtype(self) -> torch.dtype:
        """Number format that holds those of all parts."""
        dtype = self._parts[0].dtype
        for part in self._parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        return dtype

    def read_into(self, out: Shaped[Tensor, "batch d_in"], start: int) -> None:
        """Fill `out` with the rows from `start` on, each part in its columns."""
        for part, columns in self._columns(out):
            part.read_into(columns, start)

    def _take_into(self, out: Tensor, rows: Tensor) -> None:
        for part, columns in self._columns(out):
            part._take_into(columns, rows)

    def _columns(self, out: Tensor) -> Iterator[tuple[Vectors, Tensor]]:
        """Return each part with the columns that are its own."""
        return zip(self._parts, out.split([part.d_in for part in self._parts], dim=1), strict=True)

    def restricted(self, index: RowIndex, **filters: object) -> Vectors:
        """Refuse: the parts may lie in different stores, so they are restricted first and put together then."""
        raise StoreError(f"{self!r}: restrict its parts.")


def together(parts: Sequence[Vectors]) -> Vectors:
    """Return the only part, or several side by side."""
    return parts[0] if len(parts) == 1 else SideBySide(parts)

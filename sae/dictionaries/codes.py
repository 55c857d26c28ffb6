"""Sparse codes: which latents are active in each row, and how strongly."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """Codes of a batch in compressed rows; row i holds entries `offsets[i]:offsets[i + 1]`.

    Rows may differ in count. Entries of a row are unique latents in no particular order; a stored value may be zero
    (top-k over a row with fewer than k positive pre-activations), and zeros do not count as firing. Where vectors were
    normalised one by one, `row_mean` and `row_deviation` say by what, for decoding.
    """

    offsets: Int[Tensor, " batch_plus_1"]
    indices: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    d_sae: int
    row_mean: Float[Tensor, "batch 1"] | None = None
    row_deviation: Float[Tensor, "batch 1"] | None = None

    @classmethod
    def from_topk(cls, indices: Int[Tensor, "batch k"], values: Float[Tensor, "batch k"], d_sae: int) -> Self:
        """Wrap a fixed number of entries per row."""
        batch, k = indices.shape
        offsets = torch.arange(batch + 1, device=indices.device) * k
        return cls(offsets, indices.reshape(-1).to(torch.int32), values.reshape(-1), d_sae)

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "batch d_sae"]) -> Self:
        """Keep the entries that are not zero."""
        batch, d_sae = dense.shape
        flat = dense.reshape(-1)
        active = flat.nonzero().squeeze(1)
        offsets = torch.searchsorted(active, torch.arange(batch + 1, device=dense.device) * d_sae)
        return cls(offsets, (active % d_sae).to(torch.int32), flat[active], d_sae)

    @classmethod
    def cat(cls, parts: Sequence["Codes"]) -> Self:
        """Lay the rows of several codes of one dictionary one below another."""
        counts = torch.cat([part.counts for part in parts])
        indices, values = (torch.cat(column) for column in zip(*((c.indices, c.values) for c in parts), strict=True))
        means, deviations = ([getattr(c, name) for c in parts] for name in ("row_mean", "row_deviation"))
        stacked = [None if column[0] is None else torch.cat(column) for column in (means, deviations)]
        return cls(_offsets(counts), indices, values, parts[0].d_sae, *stacked)

    def on(self, rows: Int[Tensor, " chosen"]) -> "Codes":
        """Return some rows, in the order in which they are given."""
        counts = self.counts[rows]
        offsets = _offsets(counts)
        shift = (self.offsets[rows] - offsets[:-1]).repeat_interleave(counts)
        entries = torch.arange(len(shift), device=shift.device) + shift
        normalised_by = [None if one is None else one[rows] for one in (self.row_mean, self.row_deviation)]
        return Codes(offsets, self.indices[entries], self.values[entries], self.d_sae, *normalised_by)

    def of_latents(self, latents: Sequence[int]) -> "Codes":
        """Return the entries of some latents alone, in the same rows."""
        wanted = torch.zeros(self.d_sae, dtype=torch.bool, device=self.indices.device)
        wanted[list(latents)] = True
        keep = wanted[self.indices.long()]
        offsets = _offsets(keep.long())[self.offsets.long()]
        return replace(self, offsets=offsets, indices=self.indices[keep], values=self.values[keep])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int[Tensor, " batch"]:
        """Entries stored per row."""
        return self.offsets.diff()

    @property
    def rows(self) -> Int[Tensor, " nnz"]:
        """Row of every entry."""
        numbers = torch.arange(len(self), device=self.offsets.device)
        return numbers.repeat_interleave(self.counts, output_size=len(self.indices))

    def l0(self) -> Int[Tensor, " batch"]:
        """Count the latents that fire in each row."""
        return self._count_fired(self.rows, len(self))

    def n_fired(self) -> Int[Tensor, " d_sae"]:
        """Count the rows in which each latent fires."""
        return self._count_fired(self.indices, self.d_sae)

    def dense(self) -> Float[Tensor, "batch d_sae"]:
        """Spread the entries over all latents."""
        out = self.values.new_zeros(len(self), self.d_sae)
        return out.index_put_((self.rows, self.indices.long()), self.values)

    def column(self, latent: int) -> Float[Tensor, " batch"]:
        """Return the values of one latent, zero in the rows that have no entry of it."""
        own = self.indices == latent
        return self.values.new_zeros(len(self)).index_put_((self.rows[own],), self.values[own])

    def to(self, device: torch.device | str) -> "Codes":
        """Move to a device."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)})

    def _count_fired(self, groups: Tensor, n_groups: int) -> Tensor:
        """Count non-zero entries per group; integer sums are the same in any order, also on a GPU."""
        fired = (self.values != 0).long()
        return torch.zeros(n_groups, dtype=torch.int64, device=fired.device).index_add_(0, groups, fired)


def _offsets(counts: Int[Tensor, " batch"]) -> Int[Tensor, " batch_plus_1"]:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

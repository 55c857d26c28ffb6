"""Sparse codes: which latents are active in each row, and how strongly."""

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
        active = dense != 0
        offsets = torch.zeros(len(dense) + 1, dtype=torch.int64, device=dense.device)
        offsets[1:] = active.sum(1).cumsum(0)
        return cls(offsets, active.nonzero()[:, 1].to(torch.int32), dense[active], dense.shape[1])

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

    def to(self, device: torch.device | str) -> "Codes":
        """Move to a device."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return replace(self, **{name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)})

    def _count_fired(self, groups: Tensor, n_groups: int) -> Tensor:
        """Count non-zero entries per group; integer sums are the same in any order, also on a GPU."""
        fired = (self.values != 0).long()
        return torch.zeros(n_groups, dtype=torch.int64, device=fired.device).index_add_(0, groups, fired)

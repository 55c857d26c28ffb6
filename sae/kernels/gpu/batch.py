"""The largest entries of a whole batch, without sorting all of batch x d_sae."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.kernels.gpu.above import select_above
from sae.kernels.gpu.topk import select_topk

TIMES_MEAN = 4
"""Entries that every row puts forward, as a multiple of what rows get on average."""


def select_batch_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the n largest positive pre-activations of the whole batch, in compressed rows; needs no guess.

    Every row puts forward its largest. Let T be the n-th largest of these: a row holds back something above T only if
    all it put forward is above T. Such rows are searched again for everything above T.
    Waits for the device, to learn whether there are such rows and how many entries are positive.
    """
    batch, d_sae = len(x), len(weight)
    put_forward = min(TIMES_MEAN * -(-n // max(batch, 1)), d_sae)
    values, indices = select_topk(x, weight, bias, put_forward, None, 0)
    values = values.where(values > 0, -torch.inf)
    best = values.flatten().topk(min(n, values.numel()), sorted=False)
    bound = best.values.min() if len(best.values) else floor.new_zeros(())
    holds_back = (values > bound).all(1) & (put_forward < d_sae)
    rows = torch.arange(batch, device=x.device)[:, None].expand_as(values)
    if bool(holds_back.any()):
        # A little below T, so that entries equal to it stay in the running; what is chosen is decided among all.
        below = bound.clamp_min(0) * (1 - 4 * torch.finfo(values.dtype).eps)
        offsets, more_indices, more_values = select_above(x[holds_back], weight, bias, below)
        owners = holds_back.nonzero()[:, 0].repeat_interleave(offsets.diff())
        settled = ~holds_back
        rows = torch.cat([rows[settled].flatten(), owners])
        indices = torch.cat([indices[settled].flatten(), more_indices])
        values = torch.cat([values[settled].flatten(), more_values])
        best = values.topk(min(n, len(values)), sorted=False)
    chosen = best.indices[best.values > 0].sort().values
    of_rows, order = rows.flatten()[chosen].sort(stable=True)
    chosen = chosen[order]
    offsets = torch.searchsorted(of_rows, torch.arange(batch + 1, device=x.device))
    return offsets, indices.flatten()[chosen], values.flatten()[chosen]

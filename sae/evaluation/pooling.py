"""Pooling the rows of an item by the maximum: an image is as active as its most active patch."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def pool_dense(
    x: Float[Tensor, "rows units"], item: Int[Tensor, " rows"], n_items: int
) -> Float[Tensor, "items units"]:
    """Return the maximum of each unit over the rows of each item."""
    out = x.new_full((n_items, x.shape[1]), -torch.inf)
    return out.scatter_reduce_(0, item[:, None].expand_as(x), x, "amax")


def pool_entries(
    items: Int[Tensor, " nnz"], units: Tensor, values: Tensor, item_of_row: Int[Tensor, " rows"], n_units: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the largest entry of each item and unit.

    Rows on which a unit is silent count as 0, so a unit that is negative wherever it fires pools to 0 unless it fires
    on every row of the item.
    """
    n_rows = torch.bincount(item_of_row)
    if not len(items) or int(n_rows.max()) == 1:
        return items, units, values
    pairs, inverse = np.unique(items.numpy() * n_units + units.numpy(), return_inverse=True)
    pairs, inverse = torch.from_numpy(pairs), torch.from_numpy(inverse)
    pooled = torch.full((len(pairs),), -torch.inf).scatter_reduce_(0, inverse, values, "amax")
    silent_somewhere = torch.bincount(inverse, minlength=len(pairs)) < n_rows[pairs // n_units]
    pooled = torch.where(silent_somewhere, pooled.clamp(min=0), pooled)
    kept = pooled != 0
    return pairs[kept] // n_units, pairs[kept] % n_units, pooled[kept]

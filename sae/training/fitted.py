"""Figures of a dictionary that was fitted at once, in place of those that a run of steps logs."""

import torch
from torch import Tensor

from sae.dictionaries.base import Dictionary

CHUNK_VECTORS = 4096
"""Vectors that are measured at a time."""


@torch.no_grad()
def figures_at_once(dictionary: Dictionary, x: Tensor) -> dict[str, float]:
    """Return FVU and L0 of a dictionary on vectors as it sees them, [batch d_in]."""
    squared_error, n_active = 0.0, 0
    for rows in x.split(CHUNK_VECTORS):
        codes = dictionary.encode(rows)
        squared_error += float((dictionary.decode(codes) - rows).double().square().sum())
        n_active += int(codes.l0().sum())
    spread = float((x - x.mean(0)).double().square().sum())
    return {"fvu": squared_error / spread, "l0": n_active / len(x), "n_vectors": len(x)}

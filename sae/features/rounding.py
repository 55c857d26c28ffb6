"""Numbers as cards hold them: four significant digits in plain Python, pairs with their number, histograms."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

DIGITS = 4


def rounded(value: float) -> float | None:
    """Return a number with four significant digits; None for one that is not finite, which JSON cannot hold."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def all_rounded(values: Iterable[float]) -> list[float | None]:
    """Return numbers with four significant digits."""
    return [rounded(value) for value in values]


def pairs(names: Iterable[Any], values: Iterable[float]) -> list[list[Any]]:
    """Return `[name, number]` for each of both."""
    return [[name, rounded(value)] for name, value in zip(names, values, strict=True)]


def histograms(values: Float[Tensor, "rows entries"], n_bins: int) -> list[dict[str, Sequence[Any]]]:
    """Count the entries of every row in bins of equal width from its smallest entry to its largest.

    A row whose entries are all the same has them in its first bin.
    """
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    width = torch.where(high > low, (high - low) / n_bins, 1.0)
    bins = ((values - low) / width).long().clamp(max=n_bins - 1)
    counts = torch.zeros(len(values), n_bins, dtype=torch.int64)
    counts.scatter_add_(1, bins, torch.ones_like(bins))
    edges = low + width * torch.arange(n_bins + 1)
    return [
        {"edges": all_rounded(edge), "counts": count}
        for edge, count in zip(edges.tolist(), counts.tolist(), strict=True)
    ]

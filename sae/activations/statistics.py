"""Mean, variance and norms of the vectors at a hookpoint, streamed in float64.

Each batch is summed once, in slices, and batches are merged in order by the formula
of Chan, Golub and LeVeque (*Updating Formulae and a Pairwise Algorithm for Computing Sample Variances*, 1979). The
same batches in the same order give the same bits.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from sae.tensors import Kind, Vectors

_SLICE_ELEMENTS = 1 << 17
"""Values converted to float64 at a time, which bounds the memory that takes."""


@dataclass(frozen=True)
class Statistics:
    """Moments of `count` vectors; `deviation` sums squared deviations from the mean, `comoment` their products."""

    count: int
    mean: Float64[Tensor, " d_in"]
    deviation: Float64[Tensor, " d_in"]
    norm_sum: Float64[Tensor, ""]
    square_norm_sum: Float64[Tensor, ""]
    comoment: Float64[Tensor, "d_in d_in"] | None = None

    @classmethod
    def of(cls, x: Vectors, covariance: bool = False) -> Self:
        """Summarise some vectors, on the device they lie on."""
        n, d_in = x.shape
        device = x.device
        total, squares = (torch.zeros(d_in, dtype=torch.float64, device=device) for _ in range(2))
        norms = torch.zeros((), dtype=torch.float64, device=device)
        products = torch.zeros(d_in, d_in, dtype=torch.float64, device=device) if covariance else None
        for part in x.split(max(1, _SLICE_ELEMENTS // d_in)):
            values = part.double()
            # Sums over rows as products with ones: several times faster on a CPU than summing along the first axis.
            ones = values.new_ones(len(values))
            total += ones @ values
            if products is not None:
                products.addmm_(values.T, values)
            square = values.square_()
            squares += ones @ square
            norms += square.sum(1).sqrt_().sum()
        mean = total / max(n, 1)
        deviation = (squares - n * mean.square()).clamp_(min=0)
        comoment = products.sub_(n * torch.outer(mean, mean)) if products is not None else None
        return cls(n, mean, deviation, norms, squares.sum(), comoment)

    @classmethod
    def merge_all(cls, parts: Iterable[Self]) -> Self:
        """Merge one or more summaries, in order."""
        parts = iter(parts)
        merged = next(parts)
        for part in parts:
            merged = merged.merge(part)
        return merged

    def merge(self, other: Self) -> Self:
        """Return the summary of both sets of vectors."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        difference = other.mean - self.mean
        weight = self.count * other.count / count
        comoment = None
        if self.comoment is not None and other.comoment is not None:
            comoment = self.comoment + other.comoment + weight * torch.outer(difference, difference)
        return type(self)(
            count,
            self.mean + difference * (other.count / count),
            self.deviation + other.deviation + weight * difference.square(),
            self.norm_sum + other.norm_sum,
            self.square_norm_sum + other.square_norm_sum,
            comoment,
        )

    @property
    def variance(self) -> Float64[Tensor, " d_in"]:
        """Mean squared deviation from the mean, per coordinate (divided by the count)."""
        return self.deviation / max(self.count, 1)

    @property
    def covariance(self) -> Float64[Tensor, "d_in d_in"] | None:
        """Covariance over the vectors (divided by the count), where it was asked for."""
        return None if self.comoment is None else self.comoment / max(self.count, 1)

    @property
    def mean_norm(self) -> float:
        """Mean Euclidean norm; sqrt(d_in) divided by it is the scale of training."""
        return self.norm_sum.item() / max(self.count, 1)

    @property
    def mean_square_norm(self) -> float:
        """Mean squared Euclidean norm."""
        return self.square_norm_sum.item() / max(self.count, 1)

    def finite(self) -> bool:
        """Say whether every vector was finite."""
        return bool(self.square_norm_sum.isfinite())

    def moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        """Return the summary with its tensors moved to another device."""
        return type(self)(
            self.count,
            move(self.mean),
            move(self.deviation),
            move(self.norm_sum),
            move(self.square_norm_sum),
            None if self.comoment is None else move(self.comoment),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return what `from_tensors` reads back without loss."""
        scalars = torch.stack([self.norm_sum, self.square_norm_sum])
        stored = {"count": torch.tensor([self.count]), "mean": self.mean, "deviation": self.deviation, "norms": scalars}
        return stored if self.comoment is None else stored | {"comoment": self.comoment}

    @classmethod
    def from_tensors(cls, stored: Mapping[str, Tensor]) -> Self:
        """Rebuild from `tensors()`."""
        norm_sum, square_norm_sum = stored["norms"]
        count = int(stored["count"].item())
        return cls(count, stored["mean"], stored["deviation"], norm_sum, square_norm_sum, stored.get("comoment"))


ByKind = dict[Kind, Statistics]
"""Summaries of the rows of each kind: a filter on kinds then needs no second reading."""


def by_kind(x: Vectors, kinds: UInt8[Tensor, " batch"], covariance: bool = False) -> ByKind:
    """Summarise the rows of each kind apart; `kinds` lies on the CPU."""
    counts = torch.bincount(kinds, minlength=len(Kind)).tolist()
    present = [kind for kind in Kind if counts[kind]]
    if len(present) == 1:
        return {present[0]: Statistics.of(x, covariance)}
    rows = {kind: (kinds == kind).nonzero().squeeze(1).to(x.device) for kind in present}
    return {kind: Statistics.of(x.index_select(0, rows[kind]), covariance) for kind in present}


def merge_kinds(first: ByKind, second: ByKind) -> ByKind:
    """Merge two summaries kind by kind."""
    merged = {kind: [part[kind] for part in (first, second) if kind in part] for kind in Kind}
    return {kind: Statistics.merge_all(parts) for kind, parts in merged.items() if parts}

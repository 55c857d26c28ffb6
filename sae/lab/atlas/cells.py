"""Vectors laid out in the plane and in the cells of a grid, and how far neighbouring cells agree."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.features.building.map import laid_out

SHUFFLES = 999
EDGE = 0.005
"""Share of the items that may lie beyond each border of the grid; they count to the outermost cells."""
N_NEIGHBOURS, MIN_DIST = 40, 0.9
"""Of the layout: islands of one concept each would leave most of the plane empty."""


@dataclass(frozen=True)
class Atlas:
    """Items in the cells of a grid.

    Attributes:
        x: the vectors that were laid out.
        place: where each lies in the plane.
        column, row: of the cell of each.
        n_cells: along each side.
        fewest: items that a cell must hold.
    """

    x: Float[Tensor, "items d_in"]
    place: Float[np.ndarray, "items 2"]
    column: Int[Tensor, " items"]
    row: Int[Tensor, " items"]
    n_cells: int
    fewest: int

    @classmethod
    def of(cls, x: Float[Tensor, "items d_in"], n_cells: int, fewest: int, seed: int) -> "Atlas":
        """Lay vectors out by the cosines of what is left of them without their mean, and part the plane into cells."""
        place = laid_out(F.normalize(x - x.mean(0), dim=1).numpy(), seed, N_NEIGHBOURS, MIN_DIST)
        return cls.placed(x, place, n_cells, fewest)

    @classmethod
    def placed(
        cls, x: Float[Tensor, "items d_in"], place: Float[np.ndarray, "items 2"], n: int, fewest: int
    ) -> "Atlas":
        """Part the plane into n by n cells of equal size."""
        low, high = np.quantile(place, [EDGE, 1 - EDGE], axis=0)
        cell = np.floor((place - low) / np.maximum(high - low, 1e-12) * n).clip(0, n - 1).astype(np.int64)
        column, row = torch.from_numpy(cell).T
        return cls(x, place, column, row, n, fewest)

    @cached_property
    def cells(self) -> Int[Tensor, "cells 2"]:
        """Column and row of every cell that holds enough items, row by row."""
        counts = (self.row * self.n_cells + self.column).bincount(minlength=self.n_cells**2)
        found = (counts >= self.fewest).nonzero()[:, 0]
        return torch.stack([found % self.n_cells, found // self.n_cells], 1)

    @cached_property
    def cell(self) -> Int[Tensor, " items"]:
        """Number of each item's cell in `cells`, -1 where that holds too few."""
        number = torch.full((self.n_cells, self.n_cells), -1)
        number[self.cells[:, 0], self.cells[:, 1]] = torch.arange(len(self.cells))
        return number[self.column, self.row]

    def members(self, cell: int) -> Int[Tensor, " members"]:
        return (self.cell == cell).nonzero()[:, 0]

    def averaged(self, values: Float[Tensor, "items width"]) -> Float[Tensor, "cells width"]:
        """Return the mean of values over every cell's items."""
        inside, n = self.cell >= 0, len(self.cells)
        total = torch.zeros(n, values.shape[1], dtype=torch.float64)
        total.index_add_(0, self.cell[inside], values[inside].double())
        return total / self.cell[inside].bincount(minlength=n)[:, None]

    @cached_property
    def neighbours(self) -> Int[Tensor, "pairs 2"]:
        """Pairs of cells that share a side."""
        apart = (self.cells[:, None] - self.cells).abs().sum(-1)
        return (apart == 1).triu().nonzero()


@dataclass(frozen=True)
class Agreement:
    """How often items of neighbouring cells have the same label, and of the same cells in shuffled places.

    Attributes:
        beside: mean over pairs of neighbours of the chance that an item of each has the same label.
        shuffled: the same for every shuffle of the cells.
        inside: mean over cells of the chance that two items drawn from one have the same label.
        base: the chance for two items of any cells.
    """

    beside: float
    shuffled: Float[Tensor, " shuffles"]
    inside: float
    base: float

    @classmethod
    def of(cls, atlas: Atlas, labels: Int[Tensor, " items"], seed: int) -> "Agreement | None":
        """Compare labels; items of -1 have none, and cells without any label stay out of the shuffle.

        Returns:
            None where no two neighbours have labels.
        """
        held = (labels >= 0) & (atlas.cell >= 0)
        counts = torch.zeros(len(atlas.cells), int(labels.max()) + 1, dtype=torch.float64)
        counts.index_put_((atlas.cell[held], labels[held]), torch.ones((), dtype=torch.float64), accumulate=True)
        n = counts.sum(1)
        there = n > 0
        number = there.long().cumsum(0) - 1
        first, second = number[atlas.neighbours[there[atlas.neighbours].all(1)]].T
        if not len(first):
            return None
        counts, n = counts[there], n[there]
        same = (counts / n[:, None]) @ (counts / n[:, None]).T
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(len(counts), generator=generator) for _ in range(SHUFFLES)]
        shuffled = torch.stack([same[order[first], order[second]].mean() for order in orders])
        several = n > 1
        inside = (counts * (counts - 1)).sum(1)[several] / (n * (n - 1))[several]
        total = counts.sum(0)
        base = (total * (total - 1)).sum() / (total.sum() * (total.sum() - 1))
        within = float(inside.mean()) if several.any() else 0.0
        return cls(float(same[first, second].mean()), shuffled, within, float(base))

    def figures(self, what: str) -> dict[str, float]:
        low, high = self.shuffled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return {
            f"{what}, neighbours agree": self.beside,
            f"{what}, shuffled": float(self.shuffled.mean()),
            f"{what}, shuffled, low": low,
            f"{what}, shuffled, high": high,
            f"{what}, within a cell": self.inside,
            f"{what}, any two items": self.base,
        }

"""An invertible affine map of vectors: what a dictionary is trained behind, and what is folded into its weights.

z = (x - mean) * matrix              matrix [d]: one factor per coordinate
z = (x - mean) @ matrix              matrix [d d]
x = z @ inverse + mean
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from sae.tensors import Vectors

Matrix = Float[Tensor, " d"] | Float[Tensor, "d d"]
"""A matrix, or the diagonal of one that has nothing else."""


@dataclass(frozen=True)
class Affine:
    """Subtract `mean`, then multiply by `matrix`; `inverse` undoes the product. Made in float64."""

    mean: Float[Tensor, " d"]
    matrix: Matrix
    inverse: Matrix

    @classmethod
    def scaling(cls, scale: float, width: int, mean: Float[Tensor, " d"] | None = None) -> Self:
        """Return (x - mean) * scale; without a mean nothing is subtracted."""
        ones = torch.ones(width, dtype=torch.float64)
        return cls(torch.zeros_like(ones) if mean is None else mean.double(), ones * scale, ones / scale)

    @classmethod
    def side_by_side(cls, parts: Sequence[Self]) -> Self:
        """Return the map that applies each part to its own coordinates, in order."""
        if len(parts) == 1:
            return parts[0]
        diagonal = all(part.matrix.ndim == 1 for part in parts)
        join = torch.cat if diagonal else lambda blocks: torch.block_diag(*map(_square, blocks))
        matrix, inverse = join([part.matrix for part in parts]), join([part.inverse for part in parts])
        return cls(torch.cat([part.mean for part in parts]), matrix, inverse)

    @property
    def width(self) -> int:
        """Coordinates of a vector."""
        return len(self.mean)

    @property
    def unit(self) -> float:
        """Length of one normalised unit before normalisation, the root mean square over directions.

        The reciprocal of the factor, where there is a single one.
        """
        squares = self.inverse.square()
        return float((squares.sum() / self.width).sqrt())

    @property
    def is_uniform(self) -> bool:
        """Whether directions are kept: one factor for all coordinates."""
        return self.matrix.ndim == 1 and bool((self.matrix == self.matrix[0]).all())

    def keeps_apart(self, n_parts: int) -> bool:
        """Whether none of `n_parts` equal stretches of coordinates is mixed with another."""
        if self.matrix.ndim == 1:
            return True
        size = self.width // n_parts
        blocks = [self.matrix[i : i + size, i : i + size] for i in range(0, self.width, size)]
        return bool((torch.block_diag(*blocks) == self.matrix).all())

    def __call__(self, x: Vectors) -> Vectors:
        """Map vectors, in their own dtype."""
        return times(x - self.mean.to(x), self.matrix.to(x))

    def undo(self, z: Vectors) -> Vectors:
        """Map back, in the dtype of z."""
        return times(z, self.inverse.to(z)) + self.mean.to(z)

    def part(self, columns: slice) -> Self:
        """Return the map of some of the coordinates, which must not mix with the others."""
        cut = (columns,) if self.matrix.ndim == 1 else (columns, columns)
        return type(self)(self.mean[columns], self.matrix[cut], self.inverse[cut])

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        """Return the map as it is applied while training."""
        return type(self)(*(tensor.to(device, dtype) for tensor in (self.mean, self.matrix, self.inverse)))


def times(rows: Float[Tensor, "n d"], matrix: Matrix) -> Float[Tensor, "n d"]:
    """Multiply rows with a matrix or a diagonal."""
    return rows * matrix if matrix.ndim == 1 else rows @ matrix


def transposed(matrix: Matrix) -> Matrix:
    """Transpose; a diagonal is its own."""
    return matrix if matrix.ndim == 1 else matrix.T


def _square(matrix: Tensor) -> Tensor:
    return torch.diag(matrix) if matrix.ndim == 1 else matrix

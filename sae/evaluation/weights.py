"""Weights of items that are mostly zero, such as labels: sums over items cost what the entries cost."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

UNITS_AT_ONCE = 1024
"""Units handled at a time where much memory is needed for each; sums in a sparse matrix are no smaller than dense."""


class Weights:
    """One column of numbers per feature, one row per item; zeros are not kept.

    Where functions take weights or a tensor, a tensor that is mostly zero is better given as weights, and once.
    """

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix

    @classmethod
    def of(cls, values: "Shaped[Tensor, 'items features'] | Weights") -> "Weights":
        """Keep the entries of a tensor, or booleans as ones, in float64."""
        if isinstance(values, Weights):
            return values
        from scipy.sparse import csr_array

        return cls(csr_array(values.numpy(force=True)).astype(np.float64))

    @classmethod
    def of_groups(cls, group: Int[Tensor, " items"], n_groups: int) -> "Weights":
        """Weigh every item 1 in the column of its group; items of group -1 have no weight."""
        from scipy.sparse import csr_array

        inside = (group >= 0).numpy()
        offsets = np.zeros(len(group) + 1, dtype=np.int32)
        offsets[1:] = inside.cumsum()
        numbers = group.numpy()[inside].astype(np.int32)
        return cls(csr_array((np.ones(len(numbers)), numbers, offsets), shape=(len(group), n_groups)))

    @classmethod
    def beside(cls, parts: "list[Weights]") -> "Weights":
        """Put columns side by side."""
        from scipy.sparse import hstack

        return cls(hstack([part._matrix for part in parts], format="csr"))

    @property
    def n_items(self) -> int:
        return self._matrix.shape[0]

    @property
    def n_features(self) -> int:
        return self._matrix.shape[1]

    def on(self, items: "Bool[Tensor, ' items'] | Int[Tensor, ' chosen']") -> "Weights":
        """Return the weights of some items."""
        return Weights(self._matrix[items.numpy()])

    def scaled(self, factors: Float[Tensor, " items"]) -> "Weights":
        """Multiply the weights of each item by a factor."""
        matrix = self._matrix.copy()
        matrix.data *= np.repeat(factors.numpy(), np.diff(matrix.indptr))
        return Weights(matrix)

    @cached_property
    def totals(self) -> Float[Tensor, " features"]:
        """Sum over items."""
        return torch.from_numpy(np.asarray(self._matrix.sum(0)))

    @cached_property
    def square_norms(self) -> Float[Tensor, " items"]:
        """Sum of squares of each item's weights."""
        return torch.from_numpy(np.asarray((self._matrix * self._matrix).sum(1)))

    def dense(self) -> Float[Tensor, "items features"]:
        return torch.from_numpy(self._matrix.toarray())

    def members(self, feature: int) -> Int[np.ndarray, " weighted"]:
        """Return the items that have a weight for the feature, in order."""
        columns = self._by_feature
        return columns.indices[columns.indptr[feature] : columns.indptr[feature + 1]]

    def over_entries(
        self,
        offsets: Int[Tensor, " units_plus_1"],
        items: Int[Tensor, " nnz"],
        factors: Shaped[Tensor, " nnz"],
    ) -> Float[Tensor, "units features"]:
        """Sum, over the entries of each unit, the weights of the entry's item times a factor."""
        from scipy.sparse import csr_array

        parts = (factors.double().numpy(), items.numpy(), offsets.int().numpy())
        matrix: Any = csr_array(parts, shape=(len(offsets) - 1, self.n_items))
        sums = np.empty((matrix.shape[0], self.n_features))
        for first in range(0, len(sums), UNITS_AT_ONCE):
            block = slice(first, first + UNITS_AT_ONCE)
            (matrix[block] @ self._matrix).toarray(out=sums[block])
        return torch.from_numpy(sums)

    def over_columns(
        self, columns: Shaped[Tensor, "items units"] | Shaped[np.ndarray, "items units"]
    ) -> Float[Tensor, "units features"]:
        """Sum over items the weights times dense columns."""
        return torch.from_numpy((self._by_feature.T @ np.asarray(columns, np.float64)).T)

    @cached_property
    def _by_feature(self) -> Any:
        return self._matrix.tocsc()

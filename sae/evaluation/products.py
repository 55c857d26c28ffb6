"""Sums over items of products of activations: every unit of one dictionary with every unit of another.

The matrix of units by units is never held, only blocks of its rows. Sparse codes cost what their entries cost: an item
on which n units of one and m of the other fire adds n * m products.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae.evaluation.responses import UNIT_BLOCK, Responses, SparseResponses

SPARSE_BLOCK = 512
"""Sparse units of the first dictionary per block, at most."""
BLOCK_SUMS = 1 << 23
"""Sums per block, at most: 64 MiB of them."""

Blocks = Iterator[tuple[int, Float[Tensor, "block others"]]]


def products(one: Responses, two: Responses) -> Blocks:
    """Yield, for consecutive units of the first, the float64 sums over items of a * b, with the first one's number."""
    if isinstance(one, SparseResponses) and isinstance(two, SparseResponses):
        for first, (block,) in power_products(one, two, [(1, 1)]):
            yield first, block
    else:
        for first, block in one.blocks(UNIT_BLOCK):
            yield first, two.total(block.double()).T


def power_products(
    one: SparseResponses, two: SparseResponses, powers: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, list[Float[Tensor, "block others"]]]]:
    """Yield the float64 sums over items of a ** p * b ** q for every (p, q), where 0 ** 0 counts as 0.

    A power of 0 therefore counts the items on which a unit's activation is not 0.
    """
    first_columns, second_rows = _columns(one), _columns(two).tocsr()
    size = max(1, min(SPARSE_BLOCK, BLOCK_SUMS // max(two.n_units, 1)))
    for first in range(0, one.n_units, size):
        block = first_columns[:, first : first + size].T
        pairs = ((_powered(block, p), _powered(second_rows, q)) for p, q in powers)
        yield first, [torch.from_numpy((a @ b).toarray()) for a, b in pairs]


def moments(responses: Responses) -> tuple[Float[Tensor, " units"], Float[Tensor, " units"]]:
    """Return the float64 sums over items of the activation and of its square."""
    if isinstance(responses, SparseResponses):
        values = responses.values.double()
        sums = responses.segment_sums(torch.stack([values, values.square()], 1))
        return sums[:, 0], sums[:, 1]
    parts = [(block.double().sum(0), block.double().square().sum(0)) for _, block in responses.blocks()]
    sums, squares = (torch.cat(column) for column in zip(*parts, strict=True))
    return sums, squares


def _columns(responses: SparseResponses) -> Any:
    """Return the activations as a scipy matrix, items x units, whose columns are already compressed."""
    from scipy.sparse import csc_array

    parts = (responses.values.double().numpy(), responses.items.numpy(), responses.offsets.numpy())
    return csc_array(parts, shape=(responses.n_items, responses.n_units))


def _powered(matrix: Any, power: int) -> Any:
    """Raise the entries, sharing where they lie."""
    if power == 1:
        return matrix
    data = np.ones_like(matrix.data) if power == 0 else matrix.data**power
    return type(matrix)((data, matrix.indices, matrix.indptr), shape=matrix.shape)

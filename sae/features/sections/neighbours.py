"""Latents that are like a latent: by what they write, by when they fire, by the examples they share, across sizes.

Every relation is found blockwise, once for all latents, and kept as the few nearest of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.errors import CatalogError
from sae.evaluation.controls import random_directions
from sae.evaluation.members import sparse
from sae.evaluation.products import moments
from sae.evaluation.responses import SparseResponses
from sae.evaluation.sample import Units
from sae.evaluation.splitting import MIN_TOGETHER, Step, chance_bar, masked_cosines
from sae.features.rounding import pairs

N_NEAREST = 10
MIN_SHARED = 2
"""Examples that two latents must share to be neighbours by them."""
N_RELATIVES = 5
_ENTRIES_AT_ONCE = 1 << 23
"""Products held at a time."""


@dataclass(frozen=True)
class Nearest:
    """The nearest others of each latent, nearest first; -1 where there are fewer."""

    numbers: Int[Tensor, "d_sae n"]
    values: Float[Tensor, "d_sae n"]

    @classmethod
    def stacked(cls, parts: Sequence[tuple[Tensor, Tensor]]) -> "Nearest":
        """Lay numbers and values of consecutive latents one below another."""
        numbers, values = (torch.cat(column) for column in zip(*parts, strict=True))
        return cls(numbers, values)

    def of(self, latent: int) -> list[list[Any]]:
        """Return the nearest of one latent as `[number, value]`."""
        some = self.numbers[latent] >= 0
        return pairs(self.numbers[latent][some].tolist(), self.values[latent][some].tolist())


@dataclass(frozen=True)
class Relative:
    """A dictionary of another size on the same subject: its name, and its nearest latents of each latent.

    Smaller dictionaries hold parents, larger ones children.
    """

    name: str
    d_sae: int
    nearest: Nearest

    @classmethod
    def by_activation(cls, name: str, own: Units, other: Units, n: int = N_RELATIVES, seed: int = 1) -> "Relative":
        """Relate two dictionaries at work on the same rows by the masked cosine of their activations.

        Only what is above chance counts: the bar that 5 % of random directions reach which fire as often as the larger
        dictionary's latents, as for `evaluation.splitting.children`.
        """
        small, large = sorted((own, other), key=lambda units: units.n_units)
        rates = large.responses.n_fired.double() / large.responses.n_items
        drawn = Units("random_directions", random_directions(large.sample.x, rates, seed), large.sample)
        bar = chance_bar(Step.between(sparse(small), sparse(drawn)))
        found = []
        for _, cosine, together in masked_cosines(sparse(own), sparse(other)):
            found.append(_top(torch.where((together >= MIN_TOGETHER) & (cosine > bar), cosine, -torch.inf).float(), n))
        return cls(name, other.n_units, Nearest.stacked(found))

    @classmethod
    def by_decoder(cls, name: str, own: Dictionary, other: Dictionary, n: int = N_RELATIVES) -> "Relative":
        """Relate by the cosine of decoder rows.

        Raises:
            CatalogError: the two write vectors of unequal width.
        """
        if own.d_out != other.d_out:
            raise CatalogError(f"{name}: writes vectors of width {other.d_out}, the dictionary of width {own.d_out}.")
        return cls(name, other.d_sae, by_decoder(own.W_dec, other.W_dec, n))


class Neighbours:
    """The section "neighbours": the nearest latents in several senses; senses that are not known are left out.

    Args:
        dictionary: whose latents.
        responses: of the latents on a sample of rows, for co-activation.
        examples: numbers of the strongest examples of each latent, -1 where there are fewer.
        relatives: dictionaries of other sizes.
        n: how many to name.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        responses: SparseResponses | None = None,
        examples: Int[np.ndarray, "d_sae top"] | None = None,
        relatives: Sequence[Relative] = (),
        n: int = N_NEAREST,
    ) -> None:
        self._senses = {"decoder": by_decoder(dictionary.W_dec, None, n)}
        if responses is not None:
            self._senses["coactivation"] = by_coactivation(responses, n)
        if examples is not None:
            self._senses["examples"] = by_examples(examples, n)
        self._relatives = {
            "parents": [one for one in relatives if one.d_sae < dictionary.d_sae],
            "children": [one for one in relatives if one.d_sae > dictionary.d_sae],
        }

    def of(self, latents: range) -> list[dict[str, Any] | None]:
        """Return the section of each latent, None where it has no neighbour in any sense."""
        return [self._section(latent) or None for latent in latents]

    def _section(self, latent: int) -> dict[str, Any]:
        section: dict[str, Any] = {name: sense.of(latent) for name, sense in self._senses.items()}
        for kind, relatives in self._relatives.items():
            found = [{"dictionary": one.name, "latents": one.nearest.of(latent)} for one in relatives]
            section[kind] = [one for one in found if one["latents"]]
        return {name: value for name, value in section.items() if value}


class NearLatents:
    """The section "neighbours" of directions: the latents that write and those that read most nearly along them.

    Args:
        directions: as rows.
        dictionary: whose latents; of a transcoder, which writes elsewhere, those that read.
        n: how many to name.
    """

    def __init__(self, directions: Dictionary, dictionary: Dictionary, n: int = N_NEAREST) -> None:
        rows = {"decoder": dictionary.W_dec, "encoder": dictionary.W_enc_rows}
        if dictionary.is_transcoder:
            del rows["decoder"]
        self._senses = {
            name: by_decoder(directions.W_dec, others, n)
            for name, others in rows.items()
            if others.shape[1] == directions.d_in
        }

    def of(self, directions: range) -> list[dict[str, Any] | None]:
        """Return the section of each direction."""
        return [{name: sense.of(one) for name, sense in self._senses.items()} or None for one in directions]


def by_decoder(
    W_dec: Float[Tensor, "d_sae d_out"], others: Float[Tensor, "others d_out"] | None = None, n: int = N_NEAREST
) -> Nearest:
    """Return the rows with the largest cosine; among the same rows, themselves left out, if no others are given.

    Rows of zeros have no neighbours, and are none.
    """
    unit = F.normalize(W_dec.detach().float().cpu(), dim=1)
    other = unit if others is None else F.normalize(others.detach().float().cpu(), dim=1)
    silent, found = ~other.any(1), []
    for rows in torch.arange(len(unit)).split(max(1, _ENTRIES_AT_ONCE // len(other))):
        cosine = unit[rows] @ other.T
        cosine[:, silent] = -torch.inf
        cosine[~unit[rows].any(1)] = -torch.inf
        if others is None:
            cosine[torch.arange(len(rows)), rows] = -torch.inf
        found.append(_top(cosine, n))
    return Nearest.stacked(found)


def by_coactivation(responses: SparseResponses, n: int = N_NEAREST) -> Nearest:
    """Return the latents whose activations correlate most, silent items included.

    Pearson's coefficient over items, where positive; the two must both be active on at least 10 items, for on few items
    everything correlates.
    """
    matrix, n_items = _by_unit(responses), responses.n_items
    sums, squares = (moment.numpy() for moment in moments(responses))
    mean = sums / n_items
    deviation = np.sqrt(np.maximum(squares / n_items - mean**2, 0))
    columns = matrix.T.tocsr()
    active = _ones(columns)
    found = []
    for rows in _blocks_of_products(matrix):
        product, together = matrix[rows] @ columns, _ones(matrix[rows]) @ active
        product.sort_indices()
        together.sort_indices()
        # Where a sum of products is stored, so is the count of its terms.
        unit = np.repeat(np.arange(rows.start, rows.stop), np.diff(product.indptr))
        other = product.indices
        spread = deviation[unit] * deviation[other]
        covariance = product.data / n_items - mean[unit] * mean[other]
        kept = (unit != other) & (together.data >= MIN_TOGETHER) & (covariance > 0) & (spread > 0)
        values = np.minimum(covariance[kept] / spread[kept], 1)
        found.append(_top_entries(unit[kept] - rows.start, other[kept], values, rows.stop - rows.start, n))
    return Nearest.stacked(found)


def by_examples(examples: Int[np.ndarray, "d_sae top"], n: int = N_NEAREST) -> Nearest:
    """Return the latents that share most of their strongest examples: those of both, over those of either.

    At least two must be shared. Numbers of examples may repeat within a row.
    """
    from scipy.sparse import csr_array

    row, column = (examples >= 0).nonzero()
    distinct, number = np.unique(examples[row, column], return_inverse=True)
    entries = (np.ones(len(row), np.float32), (row, number))
    matrix: Any = csr_array(entries, shape=(len(examples), max(len(distinct), 1)))
    matrix.data[:] = 1
    size, columns, found = np.diff(matrix.indptr), matrix.T.tocsr(), []
    for rows in _blocks_of_products(matrix):
        shared = matrix[rows] @ columns
        unit = np.repeat(np.arange(rows.start, rows.stop), np.diff(shared.indptr))
        kept = (unit != shared.indices) & (shared.data >= MIN_SHARED)
        unit, other, both = unit[kept], shared.indices[kept], shared.data[kept]
        values = both / (size[unit] + size[other] - both)
        found.append(_top_entries(unit - rows.start, other, values, rows.stop - rows.start, n))
    return Nearest.stacked(found)


def _by_unit(responses: SparseResponses) -> Any:
    from scipy.sparse import csr_array

    parts = (responses.values.double().numpy(), responses.items.numpy(), responses.offsets.numpy())
    matrix = csr_array(parts, shape=(responses.n_units, responses.n_items))
    matrix.eliminate_zeros()
    return matrix


def _ones(matrix: Any) -> Any:
    return type(matrix)((np.ones_like(matrix.data), matrix.indices, matrix.indptr), shape=matrix.shape)


def _blocks_of_products(matrix: Any) -> Iterator[slice]:
    """Cut rows so that the products of each block with all rows are few enough to be held."""
    n_rows = matrix.shape[0]
    per_item = np.bincount(matrix.indices, minlength=matrix.shape[1])
    total = np.concatenate([[0], per_item[matrix.indices].cumsum()])[matrix.indptr]
    # However many products there are, a row has no more sums than there are rows.
    ends = np.minimum(np.diff(total), n_rows).cumsum()
    start = 0
    while start < n_rows:
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _ENTRIES_AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def _top(values: Float[Tensor, "block others"], n: int) -> tuple[Int[Tensor, "block n"], Float[Tensor, "block n"]]:
    """Return the largest values of each row and where they are, -1 where only -inf is left."""
    top = values.topk(min(n, values.shape[1]), dim=1)
    return torch.where(top.values > -torch.inf, top.indices, -1), top.values


def _top_entries(
    row: Int[np.ndarray, " entries"], column: Int[np.ndarray, " entries"], value: np.ndarray, n_rows: int, n: int
) -> tuple[Int[Tensor, "block n"], Float[Tensor, "block n"]]:
    """Return the largest entries of each row, -1 where there are fewer than n."""
    order = np.lexsort((column, -value, row))
    row, column, value = row[order], column[order], value[order]
    rank = np.arange(len(row)) - np.searchsorted(row, np.arange(n_rows))[row]
    kept = rank < n
    numbers, values = torch.full((n_rows, n), -1, dtype=torch.int64), torch.zeros(n_rows, n)
    at = torch.from_numpy(row[kept]), torch.from_numpy(rank[kept])
    numbers[at] = torch.from_numpy(column[kept].astype(np.int64))
    values[at] = torch.from_numpy(value[kept].astype(np.float32))
    return numbers, values

"""The rows that units are scored on: vectors, exact labels, and two halves, one to match on and one to score on."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.dictionaries.linear import Linear
from sae.errors import EvaluationError
from sae.evaluation.responses import DenseResponses, Responses, SparseResponses, pool_dense
from sae.tensors import Kind

SPLIT_SEED = 0x5EED
"""Keeps the split apart from other random numbers drawn with the same small seed."""

CONTROL_SEED = 0xC0117201
"""Keeps random controls apart from the directions that training started from, which small seeds drew too."""

MIN_POSITIVES = 10
"""Items with a label, and items without it, that each half must have for the label to be scored."""

ENCODED_ROWS = 1024
"""Rows encoded at a time."""


@dataclass(frozen=True)
class LabelTable:
    """One boolean column per label value, named `family=value`."""

    names: tuple[str, ...]
    columns: Bool[Tensor, "items labels"]

    @classmethod
    def of(
        cls, labels: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]], match: Bool[Tensor, " items"]
    ) -> "LabelTable":
        """Turn integer or string labels into columns, leaving out values too rare in either half.

        Families of floating-point values are continuous factors, not classes, and are left out.

        Args:
            labels: per family, one value per item; -1 or "" means that the family says nothing about the item.
            names: per family with integer values, what each value is called.
            match: which half each item belongs to.

        Raises:
            EvaluationError: no value is frequent enough.
        """
        found_names, columns = [], []
        sides = [match.numpy(), ~match.numpy()]
        classes = {family: values for family, values in labels.items() if values.dtype.kind != "f"}
        for family, values in classes.items():
            distinct, inverse = np.unique(values, return_inverse=True)
            counts = [np.bincount(inverse[side], minlength=len(distinct)) for side in sides]
            for number, value in enumerate(distinct):
                enough = (
                    MIN_POSITIVES <= count[number] <= side.sum() - MIN_POSITIVES
                    for count, side in zip(counts, sides, strict=True)
                )
                if value not in (-1, "") and all(enough):
                    called = names[family][int(value)] if family in names else str(value)
                    found_names.append(f"{family}={called}")
                    columns.append(torch.from_numpy(inverse == number))
        if not columns:
            raise EvaluationError(
                f"labels: no value of {', '.join(labels) or 'any family'} has {MIN_POSITIVES} items with and without "
                f"it in each half of {len(match)} items; evaluate more rows."
            )
        return cls(tuple(found_names), torch.stack(columns, 1))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Whole examples of a store with the exact labels of their items.

    An *item* is what a label belongs to: a row (a token), or an example (an image) when `pooled`, whose activation is
    then the largest over its rows.

    Attributes:
        x: rows in the store's number format.
        rows: where each row comes from.
        pooled: whether items are examples.
        labels: the families to score, one value per item (see `LabelTable.of`).
        factors: every factor that the inputs know, for metrics that need another than the scored ones.
        label_names: what the integer values are called.
        match: which items units and labels are matched on; scores come from the others.

    Raises:
        EvaluationError: a vector is not finite.
    """

    x: Shaped[Tensor, "rows d_in"]
    rows: Provenance
    pooled: bool
    labels: Mapping[str, np.ndarray]
    factors: Mapping[str, np.ndarray]
    label_names: Mapping[str, Sequence[str]]
    match: Bool[Tensor, " items"]

    def __post_init__(self) -> None:
        bad = ~self.x.isfinite().all(1)
        if bad.any():
            row = int(bad.nonzero()[0])
            raise EvaluationError(
                f"sample: row {row} (example {int(self.rows.example[row])}) holds NaN or infinite values, as do "
                f"{int(bad.sum()) - 1} others of {len(bad)}; the subject overflowed, or the store was damaged."
            )

    @property
    def n_items(self) -> int:
        return len(self.match)

    @cached_property
    def example(self) -> Int[Tensor, " items"]:
        """Example number of every item."""
        return torch.unique_consecutive(self.rows.example) if self.pooled else self.rows.example

    @cached_property
    def item(self) -> Int[Tensor, " rows"]:
        """Item of every row."""
        if not self.pooled:
            return torch.arange(len(self.x))
        return torch.unique_consecutive(self.rows.example, return_inverse=True)[1]

    @cached_property
    def table(self) -> LabelTable:
        """The labels as columns."""
        return LabelTable.of(self.labels, self.label_names, self.match)

    def with_vectors(self, x: Shaped[Tensor, "rows width"]) -> "Sample":
        """Return the same rows and labels with vectors of another subject."""
        assert len(x) == len(self.x), (len(x), len(self.x))
        return dataclasses.replace(self, x=x)

    def shuffled(self, seed: int) -> "Sample":
        """Return the sample with its vectors dealt out at random within each half.

        Labels, tokens and positions stay where they are, so whatever is still found about them is chance.
        """
        generator = torch.Generator().manual_seed(SPLIT_SEED + seed)
        order = torch.arange(len(self.x))
        match = self.match[self.item]
        for half in (match, ~match):
            members = order[half]
            order[half] = members[torch.randperm(len(members), generator=generator)]
        return dataclasses.replace(self, x=self.x[order])


def halves(example: Int[Tensor, " items"], seed: int) -> Bool[Tensor, " items"]:
    """Assign whole examples to two halves at random."""
    distinct, inverse = torch.unique(example, return_inverse=True)
    side = torch.rand(len(distinct), generator=torch.Generator().manual_seed(SPLIT_SEED + seed)) < 0.5
    return side[inverse]


class Units:
    """What is scored: the latents of a dictionary, or the units of a control, at work on a sample."""

    def __init__(self, name: str, dictionary: Dictionary, sample: Sample) -> None:
        self.name, self.dictionary, self.sample = name, dictionary, sample

    @property
    def n_units(self) -> int:
        return self.dictionary.d_sae

    @cached_property
    def responses(self) -> Responses:
        """Activations per item: the largest over the rows of an item that is pooled, the class token's set aside."""
        return self._responses(self.pooled_rows, self.sample.item, self.sample.n_items)

    @cached_property
    def class_responses(self) -> Responses | None:
        """Activations of the class token per item; None where a sample has none."""
        is_class = self.sample.rows.kind == int(Kind.CLASS)
        if not self.sample.pooled or not is_class.any() or is_class.all():
            return None
        return self._responses(is_class, self.sample.item, self.sample.n_items)

    @cached_property
    def row_responses(self) -> Responses:
        """Activations per row, nothing pooled."""
        if not self.sample.pooled:
            return self.responses
        everything = torch.ones(len(self.sample.x), dtype=torch.bool)
        return self._responses(everything, torch.arange(len(self.sample.x)), len(self.sample.x))

    @cached_property
    def auc(self) -> tuple[Float[Tensor, "units labels"], Float[Tensor, "units labels"]]:
        """Area under the ROC curve of every unit for every label, on the half to match on and the half to score on."""
        columns, match = self.sample.table.columns, self.sample.match
        on_match = self.responses.on(match).auc(columns[match])
        return on_match, self.responses.on(~match).auc(columns[~match])

    @cached_property
    def alive(self) -> Bool[Tensor, " units"]:
        """Units that fire at all on the sample."""
        return self.responses.n_fired > 0

    @property
    def pooled_rows(self) -> Bool[Tensor, " rows"]:
        """Rows that `responses` pools: patches where an item has patches and a class token, else every row."""
        is_class = self.sample.rows.kind == int(Kind.CLASS)
        return is_class if is_class.all() else ~is_class

    def _responses(self, keep: Bool[Tensor, " rows"], item: Int[Tensor, " rows"], n_items: int) -> Responses:
        x, item = self.sample.x[keep], item[keep]
        dictionary, pooled = self.dictionary, len(x) > n_items
        if isinstance(dictionary, Linear):

            def columns(units: Tensor) -> Tensor:
                parts = [dictionary.activations(part.float(), units) for part in x.split(ENCODED_ROWS)]
                return pool_dense(torch.cat(parts), item, n_items) if pooled else torch.cat(parts)

            return DenseResponses(columns, n_items, dictionary.d_sae)
        return SparseResponses.gathered(self._encoded(x, item), n_items)

    def _encoded(
        self, x: Shaped[Tensor, "rows d_in"], item: Int[Tensor, " rows"]
    ) -> Iterator[tuple[Codes, Int[Tensor, " batch"]]]:
        device = self.dictionary.W_dec.device
        for start, stop in _whole_items(item):
            with torch.no_grad():
                yield self.dictionary.encode(x[start:stop].to(device).float()), item[start:stop]


def _whole_items(item: Int[Tensor, " rows"]) -> Iterator[tuple[int, int]]:
    """Cut rows into ranges of about `ENCODED_ROWS` that do not divide an item; items come in order."""
    ends = torch.cat([(item.diff() != 0).nonzero()[:, 0] + 1, torch.tensor([len(item)])])
    start = 0
    while start < len(item):
        stop = int(ends[torch.searchsorted(ends, min(start + ENCODED_ROWS, len(item)))])
        yield start, stop
        start = stop

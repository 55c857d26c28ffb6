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
from sae.evaluation.pooling import pool_dense
from sae.evaluation.reconstruction import Reconstruction
from sae.evaluation.responses import DenseResponses, Responses, SparseResponses
from sae.evaluation.weights import Weights
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

    @cached_property
    def label_halves(self) -> tuple[Weights, Weights]:
        """The labels of the items to match on, and of those to score on."""
        labels = Weights.of(self.table.columns)
        return labels.on(self.match), labels.on(~self.match)

    @property
    def pooled_rows(self) -> Bool[Tensor, " rows"]:
        """Rows that are pooled: patches where an item has patches and a class token, else every row."""
        is_class = self.rows.kind == int(Kind.CLASS)
        return is_class if is_class.all() else ~is_class

    @cached_property
    def labelled_rows(self) -> list[tuple[Bool[Tensor, " rows"], Weights]]:
        """For the half to match on and the other: which rows belong to it and are pooled, and their labels."""
        labels = Weights.of(self.table.columns).on(self.item)
        halves = [self.pooled_rows & half[self.item] for half in (self.match, ~self.match)]
        return [(half, labels.on(half)) for half in halves]

    @cached_property
    def label_excess(self) -> list[Float[Tensor, "width labels"]]:
        """For each half of `labelled_rows`, the mean vector of the rows with each label minus that of all."""
        found = []
        for keep, labels in self.labelled_rows:
            inside = torch.zeros(self.x.shape[1], labels.n_features, dtype=torch.float64)
            everything = torch.zeros(self.x.shape[1], dtype=torch.float64)
            rows = keep.nonzero()[:, 0]
            for part in torch.arange(len(rows)).split(ENCODED_ROWS):
                x = self.x[rows[part]].double()
                inside += labels.on(part).over_columns(x)
                everything += x.sum(0)
            found.append(inside / labels.totals - everything[:, None] / len(rows))
        return found

    def with_vectors(self, x: Shaped[Tensor, "rows width"]) -> "Sample":
        """Return the same rows and labels with vectors of another subject."""
        assert len(x) == len(self.x), (len(x), len(self.x))
        return dataclasses.replace(self, x=x)

    def shuffled(self, seed: int) -> "Sample":
        """Return the sample with its vectors dealt out at random within each half.

        Labels, tokens and positions stay where they are, so whatever is still found about them is chance.
        """
        return dataclasses.replace(self, x=self.x[self.dealt(seed)])

    def dealt(self, seed: int) -> Int[Tensor, " rows"]:
        """Return the row whose vector each row of the shuffled sample has."""
        generator = torch.Generator().manual_seed(SPLIT_SEED + seed)
        order = torch.arange(len(self.x))
        match = self.match[self.item]
        for half in (match, ~match):
            members = order[half]
            order[half] = members[torch.randperm(len(members), generator=generator)]
        return order


def halves(example: Int[Tensor, " items"], seed: int) -> Bool[Tensor, " items"]:
    """Assign whole examples to two halves at random."""
    distinct, inverse = torch.unique(example, return_inverse=True)
    side = torch.rand(len(distinct), generator=torch.Generator().manual_seed(SPLIT_SEED + seed)) < 0.5
    return side[inverse]


@torch.no_grad()
def encoded(dictionary: Dictionary, x: Shaped[Tensor, "rows d_in"]) -> Codes:
    """Return the codes of rows of any number format, on the CPU."""
    device = dictionary.W_dec.device
    return Codes.cat([dictionary.encode(part.to(device).float()).to("cpu") for part in x.split(ENCODED_ROWS)])


class Units:
    """What is scored: the latents of a dictionary, or the units of a control, at work on a sample.

    Args:
        name: for messages.
        dictionary: whose units they are.
        sample: what they work on.
        codes: of its rows, where they are known already.
    """

    def __init__(self, name: str, dictionary: Dictionary, sample: Sample, codes: Codes | None = None) -> None:
        self.name, self.dictionary, self.sample = name, dictionary, sample
        if codes is not None:
            assert len(codes) == len(sample.x), (len(codes), len(sample.x))
            self.codes = codes

    @property
    def n_units(self) -> int:
        return self.dictionary.d_sae

    def part(self, units: range) -> "Units":
        """Return consecutive units, of which only what they do on items is known."""
        return _Part(self, units)

    def anew(self) -> "Units":
        """Return the same units of which nothing is known yet but the codes."""
        return Units(self.name, self.dictionary, self.sample, self.__dict__.get("codes"))

    @cached_property
    def codes(self) -> Codes:
        """Codes of all rows, where the dictionary selects; of one that does not they would be as large as can be."""
        assert not isinstance(self.dictionary, Linear), self.dictionary
        return encoded(self.dictionary, self.sample.x)

    def reconstructions(self, chunk_vectors: int) -> Iterator[Reconstruction]:
        """Yield the rows with what the dictionary makes of them."""
        dictionary, device = self.dictionary, self.dictionary.W_dec.device
        for rows in torch.arange(len(self.sample.x)).split(chunk_vectors):
            x = self.sample.x[rows].to(device).float()
            codes = dictionary.encode(x) if isinstance(dictionary, Linear) else self.codes.on(rows).to(device)
            with torch.no_grad():
                yield Reconstruction(x, codes, dictionary.decode(codes))

    def shuffled(self, name: str, seed: int) -> "Units":
        """Return the units on the shuffled sample; nothing is encoded again."""
        codes = None if isinstance(self.dictionary, Linear) else self.codes.on(self.sample.dealt(seed))
        return Units(name, self.dictionary, self.sample.shuffled(seed), codes)

    @cached_property
    def responses(self) -> Responses:
        """Activations per item: the largest over the rows of an item that is pooled, the class token's set aside."""
        return self._responses(self.sample.pooled_rows, self.sample.item, self.sample.n_items)

    @cached_property
    def halves(self) -> tuple[Responses, Responses]:
        """The responses on the items to match on, and on those to score on."""
        return self.responses.on(self.sample.match), self.responses.on(~self.sample.match)

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
        (matched, scored), (labels, held_out) = self.halves, self.sample.label_halves
        return matched.auc(labels), scored.auc(held_out)

    @cached_property
    def alive(self) -> Bool[Tensor, " units"]:
        """Units that fire at all on the sample."""
        return self.responses.n_fired > 0

    def _responses(self, keep: Bool[Tensor, " rows"], item: Int[Tensor, " rows"], n_items: int) -> Responses:
        rows, dictionary = keep.nonzero()[:, 0], self.dictionary
        if not isinstance(dictionary, Linear):
            return SparseResponses.of_codes(self.codes.on(rows), item[rows], n_items)
        x, item = self.sample.x, item[rows]

        def columns(units: Tensor) -> Tensor:
            found = torch.empty(len(rows), len(units))
            for part, into in zip(rows.split(ENCODED_ROWS), found.split(ENCODED_ROWS), strict=True):
                into.copy_(dictionary.activations(x[part].float(), units))
            return pool_dense(found, item, n_items) if len(rows) > n_items else found

        return DenseResponses.of(columns, n_items, dictionary.d_sae)


class _Part(Units):
    """Consecutive units of others."""

    def __init__(self, whole: Units, units: range) -> None:
        super().__init__(whole.name, whole.dictionary, whole.sample)
        self._n_units = len(units)
        self.responses = whole.responses.of_units(units)
        self.halves = tuple(half.of_units(units) for half in whole.halves)  # type: ignore[assignment]

    @property
    def n_units(self) -> int:
        return self._n_units

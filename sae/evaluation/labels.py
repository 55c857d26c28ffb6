"""How well single units separate exact labels: the best latent and the best raw neuron for each label."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.errors import EvaluationError
from sae.evaluation.auc import EntryCollector, auc_matrix, dense_auc_matrix, pool_dense
from sae.evaluation.metric import Score, bootstrap
from sae.tensors import Vectors

SPLIT_SEED = 0x5EED
"""Keeps the split apart from other random numbers drawn with the same small seed."""

MIN_POSITIVES = 10
"""Rows with a label, and rows without it, that each half must have for the label to be scored."""


@dataclass(frozen=True)
class LabelTable:
    """One boolean column per label value, named `family=value`."""

    names: tuple[str, ...]
    columns: Bool[Tensor, "rows labels"]

    @classmethod
    def of(
        cls, labels: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]], halves: Bool[Tensor, " rows"]
    ) -> "LabelTable":
        """Turn integer or string labels into columns, leaving out values too rare in either half.

        Families of floating-point values are continuous factors, not classes, and are left out.

        Args:
            labels: per family, one value per row; -1 or "" means that the family says nothing about the row.
            names: per family with integer values, what each value is called.
            halves: which half each row belongs to.
        """
        found_names, columns = [], []
        sides = [halves.numpy(), ~halves.numpy()]
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
                f"labels: no value of {', '.join(labels) or 'any family'} has {MIN_POSITIVES} rows with and without it "
                f"in each half of {len(halves)} rows; evaluate more rows."
            )
        return cls(tuple(found_names), torch.stack(columns, 1))


class LabelScorer:
    """Gathers activations of latents and of raw neurons with the labels of their rows, then scores every label.

    With `pooled`, labels belong to examples and activations are pooled over the rows of an example by their maximum;
    otherwise every row has its own labels.
    """

    def __init__(self, d_sae: int, pooled: bool, seed: int = 0) -> None:
        self.pooled, self.seed = pooled, seed
        self.latents = EntryCollector(d_sae)
        self.neurons: list[Vectors] = []
        self.labels: dict[str, list[np.ndarray]] = {}
        self.examples: list[Int[Tensor, " rows"]] = []

    def update(
        self, x: Vectors, codes: Codes, example: Int[Tensor, " batch"], labels: Mapping[str, np.ndarray]
    ) -> None:
        """Add a chunk of whole examples; `labels` are per row, or per distinct example when pooled."""
        # Labels and their bookkeeping stay on the host, whatever computes the codes.
        x, codes, groups = x.cpu(), codes.to("cpu"), None
        if self.pooled:
            example, groups = torch.unique_consecutive(example, return_inverse=True)
        self.latents.update(codes, groups)
        self.neurons.append(x if groups is None else pool_dense(x, groups))
        self.examples.append(example)
        for family, values in labels.items():
            assert len(values) == len(example), (family, len(values), len(example))
            self.labels.setdefault(family, []).append(values)

    @property
    def n_rows(self) -> int:
        """Rows (or examples, when pooled) gathered so far."""
        return self.latents.n_rows

    def result(self, names: Mapping[str, Sequence[str]]) -> tuple[list[Score], dict[str, Any]]:
        """Score every label, and return the scores with a table of the best units.

        `label_auc_latents` and `label_auc_neurons`: mean over labels of the area under the ROC curve of the unit that
        separates the label best. The unit is chosen on one half of the examples and scored on the other; a unit that
        never fires scores 0.5. `label_auc_gain`: mean over labels of the difference. In [0, 1], 0.5 is chance, higher
        is better; intervals resample labels.
        """
        example = torch.cat(self.examples)
        halves = _halves(example, self.seed)
        labels = {family: np.concatenate(values) for family, values in self.labels.items()}
        table = LabelTable.of(labels, names, halves)
        entries, activations = self.latents.entries(), torch.cat(self.neurons)
        latents = _matched(lambda rows: auc_matrix(entries.restricted(rows), table.columns[rows]), halves)
        neurons = _matched(lambda rows: dense_auc_matrix(activations[rows], table.columns[rows]), halves)
        n = len(table.names)
        scores = [
            _mean("label_auc_latents", latents[1], self.seed),
            _mean("label_auc_neurons", neurons[1], self.seed),
            _mean("label_auc_gain", latents[1] - neurons[1], self.seed),
        ]
        rows = [
            {
                "label": table.names[i],
                "positives": int(table.columns[:, i].sum()),
                "latent": int(latents[0][i]),
                "latent_auc": round(float(latents[1][i]), 4),
                "neuron": int(neurons[0][i]),
                "neuron_auc": round(float(neurons[1][i]), 4),
            }
            for i in range(n)
        ]
        return scores, {"rows": len(example), "labels": rows}


def _halves(example: Int[Tensor, " rows"], seed: int) -> Bool[Tensor, " rows"]:
    """Assign whole examples to two halves at random."""
    distinct, inverse = torch.unique(example, return_inverse=True)
    side = torch.rand(len(distinct), generator=torch.Generator().manual_seed(SPLIT_SEED + seed)) < 0.5
    return side[inverse]


def _matched(
    auc_on: Callable[[Bool[Tensor, " rows"]], Float[Tensor, "units labels"]], halves: Bool[Tensor, " rows"]
) -> tuple[Int[Tensor, " labels"], Float[Tensor, " labels"]]:
    """Choose the best unit of each label on one half and return its AUC on the other."""
    best = auc_on(halves).argmax(0)
    return best, auc_on(~halves).gather(0, best[None])[0]


def _mean(name: str, values: Float[Tensor, " labels"], seed: int) -> Score:
    interval = bootstrap(lambda weights: weights @ values / len(values), len(values), seed, 1000)
    value = float(values.mean())
    return Score(name=name, version=1, value=value, n=len(values), unit="labels", better="higher", interval=interval)

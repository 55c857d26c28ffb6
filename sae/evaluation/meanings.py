"""Which labels say the same or kindred things, and how many different things a unit answers to."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.sample import LabelTable
from sae.inputs.base import Kindred

RELATED_AUC = 0.65
"""Halfway between chance and `MIXED_AUC`: a label that detects another this well is related to it."""
MIXED_AUC = 0.8
"""A unit answers to the labels that it detects better than this."""


def related_labels(table: LabelTable, inputs: Any = None) -> Bool[Tensor, "labels labels"]:
    """Return which pairs of labels are related; every label is to itself, and the relation is symmetric.

    Two labels are related if one of them, taken as a detector of the other, has an AUC above 0.65, that is, if
    P(b | a) - P(b | not a) > 0.3 for either order of the two: then a unit that answers to one must answer to the other
    to some degree. Values that exclude each other are unrelated, except neighbouring whole numbers of one family
    (`indent=2`, `indent=3`), and except what `inputs` knows to be kindred.

    Args:
        table: the labels.
        inputs: where the labels come from; asked where it is `Kindred`.
    """
    columns = table.columns.double()
    share = columns.mean(0)
    together = columns.T @ columns / len(columns)
    predicts = together / share[:, None] - (share - together) / (1 - share[:, None])
    related = torch.maximum(predicts, predicts.T) > 2 * RELATED_AUC - 1
    for first, one in enumerate(table.names):
        for second in range(first):
            other = table.names[second]
            if _neighbours(one, other) or (isinstance(inputs, Kindred) and inputs.kindred(one, other)):
                related[first, second] = related[second, first] = True
    return related | torch.eye(len(related), dtype=torch.bool)


def _neighbours(one: str, other: str) -> bool:
    """Whether two labels are consecutive whole numbers of one family; "3+" counts as 3."""
    (family, _, value), (other_family, _, other_value) = one.partition("="), other.partition("=")
    numbers = [text.removesuffix("+") for text in (value, other_value)]
    return family == other_family and all(map(str.isdecimal, numbers)) and abs(int(numbers[0]) - int(numbers[1])) == 1


def meanings(
    answered: Bool[Tensor, "units labels"], related: Bool[Tensor, "labels labels"]
) -> Int[Tensor, "units labels"]:
    """Group the labels that each unit answers to into meanings: the smallest label of its group, -1 if not answered.

    Labels are of one meaning if they are related, directly or through other labels that the same unit answers to: a
    unit for animals answers to every animal, and also to `family=animal`, which binds them together.
    """
    own = torch.arange(len(related))
    group = torch.where(answered, own, -1)
    for unit in (answered.sum(1) > 1).nonzero()[:, 0].tolist():
        labels = answered[unit].nonzero()[:, 0]
        reach = related[labels][:, labels].float()
        for _ in range(len(labels).bit_length()):
            reach = (reach @ reach).clamp(max=1)
        group[unit, labels] = labels[reach.argmax(1)]
    return group


def n_meanings(
    auc: Float[Tensor, "units labels"], related: Bool[Tensor, "labels labels"], bar: float = MIXED_AUC
) -> Int[Tensor, " units"]:
    """Count the meanings of the labels that each unit detects with an AUC above the bar."""
    return (meanings(auc > bar, related) == torch.arange(len(related))).sum(1)

"""The classes of the inputs as labels of a sample, and the units that detect them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.responses import Responses
from sae.evaluation.weights import Weights
from sae.features.judging.agreement import wilson
from sae.lab.spread import joined
from sae.lab.words.joint import JointSpace

TOO_FEW = "concepts with too few examples"


@dataclass(frozen=True)
class Concepts:
    """The classes that can be scored, among all that count: those with too few examples count as not found.

    Attributes:
        names: of the classes that can be scored.
        numbers: of these among the words (`features.live.words.Words.names`).
        columns: which items show each.
        match: which items units are chosen on.
        n_all: how many classes there are, those with too few examples too.
    """

    names: tuple[str, ...]
    numbers: Int[Tensor, " concepts"]
    columns: Bool[Tensor, "items concepts"]
    match: Bool[Tensor, " items"]
    n_all: int

    @classmethod
    def of(cls, space: JointSpace) -> "Concepts":
        sample, inputs, words = space.bench.sample, space.bench.inputs, space.words.names
        classes: Any = inputs.classes  # type: ignore[attr-defined]
        labels = [f"{classes.family}={name}" for name in inputs.label_names[classes.family]]  # type: ignore[attr-defined]
        place = {name: column for column, name in enumerate(sample.table.names)}
        numbers = [number for number, label in enumerate(labels[: len(words)]) if label in place]
        columns = sample.table.columns[:, [place[labels[number]] for number in numbers]]
        names = tuple(words[number] for number in numbers)
        return cls(names, torch.tensor(numbers, dtype=torch.int64), columns, sample.match, len(words))

    @property
    def figures(self) -> dict[str, float]:
        """How many classes there are, and how many of them have too few examples to be scored."""
        return {"n_concepts": float(self.n_all), TOO_FEW: float(self.n_all - len(self.names))}

    def column(self, word: str) -> int | None:
        """Return the column of a class; None for what is no class, and for one with too few examples."""
        return self.names.index(word) if word in self.names else None

    def share(self, found: Bool[Tensor, " concepts"]) -> float:
        """Return the share of all classes that something was found for."""
        return int(found.sum()) / self.n_all

    def auc(self, responses: Responses, on_match: bool = False) -> Float[Tensor, "units concepts"]:
        """Return how well each unit detects each concept, on the half to score on, or the one to match on."""
        half = self.match if on_match else ~self.match
        return responses.on(half).auc(Weights.of(self.columns[half]))

    def detectors(self, responses: Responses) -> Int[Tensor, " concepts"]:
        """Return the unit that detects each concept best on the half to match on."""
        return self.auc(responses, on_match=True).argmax(0)


def too_few(figures: Mapping[str, float]) -> str:
    """Return a sentence on the classes that had too few examples to be scored, nothing where there are none."""
    n = figures[TOO_FEW]
    return f" {n:.0f} of the concepts had too few examples to be scored, and count as not found." if n else ""


def compared(share: float, control: float, n: int, n_control: int | None = None) -> str:
    """Say whether a share of n things is "more than", "less than" or "not distinguishable from" a control's.

    By the 95 % interval of the difference of two independent shares (Newcombe 1998, from Wilson's intervals), the
    control's of as many things if not said; shares of the same things usually vary together, which makes it cautious.
    """
    low, high = wilson(share * n, n)
    n_control = n_control or n
    control_low, control_high = wilson(control * n_control, n_control)
    if share > control and share - control > math.hypot(share - low, control_high - control):
        return "more than"
    if share < control and control - share > math.hypot(high - share, control - control_low):
        return "less than"
    return "not distinguishable from"


def beside(share: float, n: int, controls: Mapping[str, tuple[float, int]]) -> str:
    """Say how a share of n things stands to those of controls, each given with its number of things.

    Such as "more than neurons (2.0%), not distinguishable from random directions (5.1%)".
    """
    return joined({
        f"{name} ({control:.1%})": compared(share, control, n, of) for name, (control, of) in controls.items()
    })  # fmt: skip

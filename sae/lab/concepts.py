"""The classes of the inputs as labels of a sample, and the units that detect them."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.responses import Responses
from sae.evaluation.weights import Weights
from sae.lab.words.joint import JointSpace


@dataclass(frozen=True)
class Concepts:
    """The classes that are frequent enough to be scored.

    Attributes:
        numbers: of these classes among the words (`features.live.words.Words.names`).
        columns: which items show each.
        match: which items units are chosen on.
    """

    numbers: Int[Tensor, " concepts"]
    columns: Bool[Tensor, "items concepts"]
    match: Bool[Tensor, " items"]

    @classmethod
    def of(cls, space: JointSpace) -> "Concepts":
        sample, inputs = space.bench.sample, space.bench.inputs
        classes: Any = inputs.classes  # type: ignore[attr-defined]
        names = [f"{classes.family}={name}" for name in inputs.label_names[classes.family]]  # type: ignore[attr-defined]
        place = {name: column for column, name in enumerate(sample.table.names)}
        numbers = [number for number, name in enumerate(names[: len(space.words.names)]) if name in place]
        columns = sample.table.columns[:, [place[names[number]] for number in numbers]]
        return cls(torch.tensor(numbers, dtype=torch.int64), columns, sample.match)

    @property
    def places(self) -> dict[int, int]:
        """The column of each word."""
        return {number: place for place, number in enumerate(self.numbers.tolist())}

    def auc(self, responses: Responses, on_match: bool = False) -> Float[Tensor, "units concepts"]:
        """Return how well each unit detects each concept, on the half to score on, or the one to match on."""
        half = self.match if on_match else ~self.match
        return responses.on(half).auc(Weights.of(self.columns[half]))

    def detectors(self, responses: Responses) -> Int[Tensor, " concepts"]:
        """Return the unit that detects each concept best on the half to match on."""
        return self.auc(responses, on_match=True).argmax(0)


def compared(share: float, control: float, n: int) -> str:
    """Say whether a share of n things is "more than", "less than" or "not distinguishable from" a control's.

    By the 95 % interval of the difference of two independent shares (Wald); shares of the same things usually vary
    together, which makes it cautious.
    """
    spread = 1.96 * ((share * (1 - share) + control * (1 - control)) / n) ** 0.5
    if abs(share - control) <= spread:
        return "not distinguishable from"
    return "more than" if share > control else "less than"

"""The units to visualise: with the concept that each stands for, and how strong it gets on data."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.detection import average_precision
from sae.evaluation.sample import Units
from sae.evaluation.weights import Weights
from sae.lab.change.interventions import check_latents
from sae.lab.words.joint import before_selection
from sae.lab.workbench import Workbench

LABELLED = 0.3
"""Average precision, on the half to match on, above which a unit stands for a concept."""
TRIED = 4
"""Concepts with the largest area under the ROC curve whose average precision is taken."""
TYPICAL = 0.99


@dataclass(frozen=True)
class Chosen:
    """Units of one kind.

    Attributes:
        name: "latents", "neurons" or "random_directions".
        units: all of that kind.
        numbers: those chosen.
        concept: of each, its number among the classes of the inputs; -1 where it stands for none.
        precision: with which it detects the concept on the half to match on.
        strong: 99th percentile of its activations above zero on the whole sample.
    """

    name: str
    units: Units
    numbers: Int[Tensor, " n"]
    concept: Int[Tensor, " n"]
    precision: Float[Tensor, " n"]
    strong: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.numbers)

    def percentile(self, place: int, value: Float[Tensor, ""]) -> float | str:
        """Return the share of a unit's activations above zero that a value exceeds; "" where there are none."""
        column = self.units.responses.columns(self.numbers[place : place + 1])[:, 0]
        fired = column[column > 0]
        return round(float((fired < value).double().mean()), 4) if len(fired) else ""

    def strongest(self, n: int) -> Int[Tensor, "units n"]:
        """Return the examples of the half to score on that drive each unit most."""
        sample = self.units.sample
        columns = self.units.responses.columns(self.numbers)
        top = columns.masked_fill(sample.match[:, None], -torch.inf).topk(n, 0).indices
        return sample.example[top.T]


class Meanings:
    """The concept of every unit, by the labels of a sample.

    A unit's concept is the one that its pre-activation detects with the largest average precision on the half to match
    on. Unlike the area under the ROC curve, average precision is high only if the concept is what drives the unit
    *most*, which is what a visualisation shows.
    """

    def __init__(self, bench: Workbench) -> None:
        inputs: Any = bench.inputs
        if getattr(inputs, "classes", None) is None:
            raise EvaluationError(f"{inputs.describe()}: these inputs have no classes for units to stand for.")
        self.bench, self.sample = bench, bench.sample
        family = inputs.classes.family
        self.names = list(inputs.label_names[family])
        column = {name: number for number, name in enumerate(self.sample.table.names)}
        self.known = [n for n, name in enumerate(self.names) if f"{family}={name}" in column]
        columns = [column[f"{family}={self.names[n]}"] for n in self.known]
        self._labels = Weights.of(self.sample.table.columns[self.sample.match][:, columns])

    def of(self, units: Units) -> tuple[Int[Tensor, " units"], Float[Tensor, " units"]]:
        """Return concept and average precision of every unit."""
        responses = before_selection(units).on(self.sample.match)
        tried = responses.auc(self._labels).topk(min(TRIED, len(self.known)), 1).indices
        unit = torch.arange(len(tried)).repeat_interleave(tried.shape[1])
        best = average_precision(responses, self._labels, unit, tried.flatten()).view(tried.shape).max(1)
        label = tried.gather(1, best.indices[:, None])[:, 0]
        concept = torch.tensor(self.known)[label]
        return torch.where(best.values > LABELLED, concept, -1), best.values.float()

    def choose(self, units: Units, n: int) -> Chosen:
        """Draw n concepts that some unit stands for, and take the unit that does so best.

        Raises:
            EvaluationError: no unit stands for any.
        """
        found = self.choose_any(units, n)
        if found is None:
            raise EvaluationError(f"{units.name}: none stands for a concept (average precision above {LABELLED}).")
        return found

    def choose_any(self, units: Units, n: int) -> Chosen | None:
        """Do the same, or return None where no unit that fires stands for any."""
        concept, precision = self.of(units)
        stands, best = (concept >= 0) & units.alive, {}
        for unit in precision.argsort(descending=True, stable=True).tolist():
            if stands[unit]:
                best.setdefault(int(concept[unit]), unit)
        if not best:
            return None
        listed = sorted(best)
        drawn = torch.randperm(len(listed), generator=torch.Generator().manual_seed(self.bench.seed))[:n]
        numbers = torch.tensor([best[listed[place]] for place in drawn.sort().values.tolist()])
        return chosen(units, numbers, concept[numbers], precision[numbers])

    def given(self, units: Units, numbers: list[int]) -> Chosen:
        """Return units asked for by number.

        Raises:
            DictionaryError: there is no such unit.
            EvaluationError: one never fires on the sample, so that nothing tells what is strong for it.
        """
        check_latents(units.dictionary, numbers)
        if silent := [number for number in numbers if not units.alive[number]]:
            raise EvaluationError(
                f"latents: {', '.join(map(str, silent))} never fire{'s' if len(silent) == 1 else ''} on the "
                f"{self.sample.n_items} items of the sample; leave {'it' if len(silent) == 1 else 'them'} out, or take "
                "more --n-vectors."
            )
        concept, precision = self.of(units)
        at = torch.tensor(numbers)
        return chosen(units, at, concept[at], precision[at])


def chosen(
    units: Units, numbers: Int[Tensor, " n"], concept: Int[Tensor, " n"], precision: Float[Tensor, " n"]
) -> Chosen:
    """Measure how strong units get."""
    columns = units.responses.columns(numbers)
    strong = [column[column > 0].quantile(TYPICAL) for column in columns.T]
    name = "latents" if units.name == "dictionary" else units.name
    return Chosen(name, units, numbers, concept, precision, torch.stack(strong))

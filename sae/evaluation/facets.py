"""Does a concept's unit answer to each of its facets: photo, sketch, word, symbol, also those the subject never saw?"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.responses import own_auc
from sae.evaluation.sample import MIN_POSITIVES, Units

FACETS = ("photo", "sketch", "word", "symbol")
"""Ways in which the concept world shows a concept."""

FACTORS = frozenset({"concept", "facet", "held_out_facet"})
"""Factors that a sample must have; the last one says whether the subject was never trained on concept and facet."""

MIN_FACET_POSITIVES = 3
"""Items to score on that a pair of concept and facet must have; an area from few items is noisy but not biased."""


@dataclass(frozen=True)
class ConceptDetection:
    """The area of each concept's unit in each facet, and which of these pairs the subject was never trained on."""

    auc: Float[Tensor, "facets concepts"]
    unseen: Bool[Tensor, "facets concepts"]

    @classmethod
    def of(cls, units: Units) -> "ConceptDetection":
        """Match on seen pairs of all facets, score facet by facet; nan where items are too few."""
        sample = units.sample
        concept, facet, held_out = (
            torch.from_numpy(sample.factors[family]).long() for family in ("concept", "facet", "held_out_facet")
        )
        shown = concept[:, None] == torch.arange(len(sample.label_names["concept"]))
        seen = sample.match & (held_out == 0)
        enough = shown[seen].sum(0) >= MIN_POSITIVES
        best = units.responses.on(seen).auc(shown[seen]).nan_to_num(0.0).argmax(0)
        activations = units.responses.columns(best)
        areas, unseen = [], []
        for name in FACETS:
            here = ~sample.match & (facet == list(sample.label_names["facet"]).index(name))
            area = own_auc(activations[here], shown[here])
            area[~enough | (shown[here].sum(0) < MIN_FACET_POSITIVES)] = torch.nan
            areas.append(area)
            unseen.append(shown[here & (held_out == 1)].any(0))
        return cls(torch.stack(areas), torch.stack(unseen))


def _facet_metric(facet: str, unseen: bool) -> Callable[[ConceptDetection], Measured]:
    """Define the metric of one facet, over the pairs that the subject was trained on or over the others."""

    def values(found: ConceptDetection) -> Float[Tensor, " concepts"]:
        row = FACETS.index(facet)
        return torch.where(found.unseen[row] == unseen, found.auc[row], torch.nan)

    trained = "never" if unseen else "also"
    values.__doc__ = f"""Held-out area of a concept's unit in the facet {facet}, which the subject {trained} saw of it.

    The unit is the one with the largest area under the ROC curve for the concept on the half to match on, all facets
    together but without pairs of concept and facet that the subject was never trained on. Its area is then taken on
    held-out items of this facet alone: those with the concept against those with another one. Mean over concepts, in
    [0, 1], 0.5 is chance, higher is better; a unit that never fires scores 0.5. Concepts with fewer than
    {MIN_POSITIVES} items to match on or {MIN_FACET_POSITIVES} to score on are left out. Only unseen pairs support a
    claim that a unit carries a concept across facets.
    """
    name = f"concept_auc_{facet}" + ("_unseen" if unseen else "")
    return item_metric(name, better="higher", unit="concepts", bounds=(0.0, 1.0), chance=0.5, paired=True)(values)


FACET_METRICS = tuple(_facet_metric(facet, unseen) for unseen in (False, True) for facet in FACETS)


def facet_scores(units: Units) -> list[Measured]:
    """Return the area per facet, seen and unseen pairs apart, as far as the sample has factors and items for it."""
    if not (units.sample.pooled and units.sample.factors.keys() >= FACTORS):
        return []
    found = ConceptDetection.of(units)
    measured = [metric(found) for metric in FACET_METRICS]
    return [metric for metric in measured if not metric.values.isnan().all()]

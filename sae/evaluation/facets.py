"""Does one unit stand for its concept however it is shown: as a photo, a sketch, a written word, an emblem?

Every picture shows one concept in one facet. Units and concepts are matched on the pictures of one half whose facet the
subject saw of their concept in training; everything is measured on other pictures. A unit's *concept* is the one it
detects best there; units that detect none with an AUC above 0.8 have no concept.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.detection import winning_chances
from sae.evaluation.meanings import MIXED_AUC
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.sample import MIN_POSITIVES, Units

FACETS = ("photo", "sketch", "word", "symbol")
"""Ways in which the concept world shows a concept."""
FACTORS = ("concept", "facet", "held_out_facet")
"""Factors that a sample must have; the last one says whether the subject was never trained on concept and facet."""
READINGS = {"photo": "literal", "sketch": "literal", "symbol": "symbolic", "word": "conceptual"}
"""What each facet asks of a unit, in the words of Goh et al. 2021."""
MULTIMODAL_FACETS = 3
"""Facets that a unit has to reach to count as multimodal."""
MIN_FACET_POSITIVES = 3
"""Pictures to score on that a pair of concept and facet must have; an area from few is noisy but not biased."""


@dataclass(frozen=True)
class Faceted:
    """What the pictures of a sample show, in which facet, and whether the subject saw the two together in training."""

    concept: Int[Tensor, " items"]
    facet: Int[Tensor, " items"]
    unseen: Bool[Tensor, " items"]
    match: Bool[Tensor, " items"]
    concept_names: tuple[str, ...]
    facet_names: tuple[str, ...]

    @classmethod
    def of(cls, units: Units) -> "Faceted":
        """Read them from the factors of the units' sample.

        Raises:
            EvaluationError: the sample knows no concepts and facets.
        """
        sample = units.sample
        missing = [name for name in FACTORS if name not in sample.factors]
        if missing or not sample.pooled:
            raise EvaluationError(
                f"facets: needs pictures with the factors {', '.join(FACTORS)}; the sample lacks "
                f"{', '.join(missing) or 'pooled rows'}. Evaluate on inputs of kind 'concepts'."
            )
        concept, facet, unseen = (torch.from_numpy(np.asarray(sample.factors[name])) for name in FACTORS)
        names = (tuple(sample.label_names[name]) for name in ("concept", "facet"))
        return cls(concept.long(), facet.long(), unseen == 1, sample.match, *names)

    @property
    def matching(self) -> Bool[Tensor, " items"]:
        """Pictures that units and concepts are matched on."""
        return self.match & ~self.unseen

    @cached_property
    def scored(self) -> Int[Tensor, " scored"]:
        """Concepts with enough pictures to match on."""
        counts = torch.bincount(self.concept[self.matching], minlength=len(self.concept_names))
        found = (counts >= MIN_POSITIVES).nonzero()[:, 0]
        if not len(found):
            raise EvaluationError(f"facets: no concept has {MIN_POSITIVES} seen pictures; evaluate more of them.")
        return found

    @cached_property
    def unseen_pairs(self) -> Bool[Tensor, "concepts facets"]:
        """Concepts and facets that the subject never saw together."""
        pairs = torch.zeros(len(self.concept_names), len(self.facet_names), dtype=torch.bool)
        pairs[self.concept[self.unseen], self.facet[self.unseen]] = True
        return pairs


class Facets:
    """The concept of every unit, the unit of every concept, and what each facet of it calls forth.

    Attributes:
        concept: of each unit, numbered as in `shown.concept_names`; -1 where it has none.
        match_auc: area of each unit for each concept that is scored, on the pictures to match on.
    """

    def __init__(self, units: Units) -> None:
        self.units, self.shown = units, Faceted.of(units)
        shown = self.shown
        columns = shown.concept[shown.matching, None] == shown.scored
        self.match_auc = units.responses.on(shown.matching).auc(columns)
        top = self.match_auc.max(1)
        self.concept = torch.where(top.values > MIXED_AUC, shown.scored[top.indices], -1)

    @cached_property
    def facet_auc(self) -> Float[Tensor, "facets units scored"]:
        """AUC of every unit for every concept within each facet, on pictures that were not matched on.

        Within a facet, pictures of the concept are told from those of other concepts, so a unit for the facet gains
        nothing. nan where such pictures are too few.
        """
        shown, found = self.shown, []
        for facet in range(len(shown.facet_names)):
            kept = ~shown.matching & (shown.facet == facet)
            own = shown.concept[kept, None] == shown.scored
            area = self.units.responses.on(kept).auc(own)
            area[:, own.sum(0) < MIN_FACET_POSITIVES] = torch.nan
            found.append(area)
        return torch.stack(found)

    def concept_auc(self, unseen: bool, n_candidates: int | None = None) -> Float[Tensor, "facets concepts"]:
        """Return the area of each concept's unit by facet; nan for concepts not scored, and for the other facets.

        Args:
            unseen: the facets that the subject never saw of the concept, or those that it saw.
            n_candidates: units to choose among, drawn at random; all of them if not given.
        """
        shown, chances = self.shown, winning_chances(self.match_auc, n_candidates)
        areas = torch.full((len(shown.facet_names), len(shown.concept_names)), torch.nan, dtype=torch.float64)
        areas[:, shown.scored] = (chances * self.facet_auc).sum(1)
        asked = shown.unseen_pairs if unseen else ~shown.unseen_pairs
        return torch.where(asked.T, areas, torch.nan)

    @cached_property
    def rises(self) -> Float[Tensor, "units facets"]:
        """Rise of each unit for its concept in each facet, on the half to score on, at least 0.

        Mean activation on the concept's pictures in the facet minus that on all other pictures in the facet. nan where
        the unit has no concept, or there is no such picture.
        """
        shown, n_facets = self.shown, len(self.shown.facet_names)
        scoring = (~shown.match).double()
        in_facet = torch.nn.functional.one_hot(shown.facet, n_facets).double() * scoring[:, None]
        cells = shown.concept[:, None] * n_facets + shown.facet[:, None]
        all_cells = (shown.scored[:, None] * n_facets + torch.arange(n_facets)).flatten()
        in_cell = (cells == all_cells).double() * scoring[:, None]
        weights = torch.cat([in_facet, in_cell], 1)
        counts, sums = weights.sum(0), self.units.responses.total(weights)
        rank = torch.searchsorted(shown.scored, self.concept.clamp(min=0)).clamp(max=len(shown.scored) - 1)
        chosen = n_facets * (1 + rank[:, None]) + torch.arange(n_facets)
        own, own_sum = counts[chosen], sums.gather(1, chosen)
        others, other_sum = counts[:n_facets] - own, sums[:, :n_facets] - own_sum
        rises = (own_sum / own - other_sum / others).clamp(min=0)
        return torch.where(self.concept[:, None] >= 0, rises, torch.nan)

    @cached_property
    def reached(self) -> Bool[Tensor, "units facets"]:
        """Facets with at least half of the largest rise; none where nothing rises."""
        rises = self.rises.nan_to_num(0)
        top = rises.amax(1, keepdim=True)
        return (rises >= top / 2) & (top > 0)


def _facet_metric(facet: str, unseen: bool) -> Callable[[Facets], Measured]:
    """Define the area of one facet, over the concepts that the subject saw in it or over the others."""

    def values(facets: Facets) -> Float[Tensor, " concepts"]:
        return facets.concept_auc(unseen)[facets.shown.facet_names.index(facet)]

    trained = "never" if unseen else "also"
    values.__doc__ = f"""Held-out area of a concept's unit in the facet {facet}, which the subject {trained} saw of it.

    The unit is the one with the largest area under the ROC curve for the concept on the half to match on, all facets
    together but without pairs of concept and facet that the subject was never trained on. Its area is then taken on
    the pictures of this facet alone that were not matched on: those with the concept against those with another one.
    Mean over concepts, in [0, 1], 0.5 is chance, higher is better; a unit that never fires scores 0.5. Concepts with
    fewer than {MIN_POSITIVES} pictures to match on or {MIN_FACET_POSITIVES} to score on are left out. Only unseen pairs
    support a claim that a unit carries a concept across facets.
    """
    name = f"concept_auc_{facet}" + ("_unseen" if unseen else "")
    kind = {"better": "higher", "unit": "concepts", "bounds": (0.0, 1.0), "chance": 0.5, "paired": True}
    return item_metric(name, **kind, version=2)(values)


FACET_METRICS = {(facet, unseen): _facet_metric(facet, unseen) for unseen in (False, True) for facet in FACETS}
"""The areas facet by facet, those of facets that the subject saw of the concept first."""


@item_metric("concept_auc_seen", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def concept_auc_seen(facets: Facets) -> Float[Tensor, " concepts"]:
    """Held-out area of each concept's unit, averaged over the facets that the subject saw of the concept.

    Unit and areas as in `concept_auc_photo` and its like. In [0, 1], 0.5 is chance, higher is better. More units are
    more candidates: compare sets of different sizes by `concept_auc_seen_equal`.
    """
    return facets.concept_auc(unseen=False).nanmean(0)


@item_metric("concept_auc_unseen", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def concept_auc_unseen(facets: Facets) -> Float[Tensor, " concepts"]:
    """Held-out area of each concept's unit, averaged over the facets that the subject never saw of the concept.

    As `concept_auc_seen`. Only this supports a claim that units carry a concept across modalities by themselves.
    Concepts without such a facet are left out.
    """
    return facets.concept_auc(unseen=True).nanmean(0)


@item_metric("concept_auc_seen_equal", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def concept_auc_seen_equal(facets: Facets, n_candidates: int) -> Float[Tensor, " concepts"]:
    """`concept_auc_seen` with an equal number of candidates: what the best of m units drawn scores on average.

    The expectation is exact, as in `label_auc_equal`; m is that of the smallest set of units compared.
    """
    return facets.concept_auc(False, n_candidates).nanmean(0)


@item_metric("concept_auc_unseen_equal", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def concept_auc_unseen_equal(facets: Facets, n_candidates: int) -> Float[Tensor, " concepts"]:
    """`concept_auc_unseen` with an equal number of candidates (see `concept_auc_seen_equal`)."""
    return facets.concept_auc(True, n_candidates).nanmean(0)


@item_metric("facet_breadth", better="higher", unit="latents", bounds=(1, 4), chance=None, paired=False)
def facet_breadth(facets: Facets) -> Float[Tensor, " units"]:
    """Number of facets that a unit's concept calls forth alike: exp of the entropy of its rises over the facets.

    The rise in a facet is the mean activation on pictures of the unit's concept in that facet minus the mean on other
    pictures in that facet, at least 0, on the half to score on; the entropy is of the rises divided by their sum. From
    1 (one facet alone) to the number of facets, 4, higher is broader. Noise alone gives about 2, which is why units
    without a concept (best AUC on seen pictures of the half to match on at most 0.8), and those that do not rise at
    all, are left out, dead ones among them; read it beside `multimodal_share`, which counts every unit. After the
    article on multimodal neurons (Goh et al. 2021, Distill), which judges by eye.
    """
    rises = facets.rises.nan_to_num(0)
    shares = rises / rises.sum(1, keepdim=True)
    return torch.special.entr(shares).sum(1).exp()


@item_metric("facets_reached", better="higher", unit="latents", bounds=(0, 4), chance=None, paired=False)
def facets_reached(facets: Facets) -> Float[Tensor, " units"]:
    """Number of facets in which a unit rises at least half as much for its concept as in its strongest facet.

    Rises as in `facet_breadth`. In [0, 4], higher is broader; 0 where the unit does not rise on the half to score on.
    Units without a concept, dead ones among them, are left out.
    """
    return torch.where(facets.concept >= 0, facets.reached.sum(1).double(), torch.nan)


@item_metric("multimodal_share", better="higher", unit="latents", bounds=(0, 1), chance=0.0, paired=False)
def multimodal_share(facets: Facets) -> Float[Tensor, " units"]:
    """Share of all units that stand for a concept and reach three or more of its four facets.

    Facets as in `facets_reached`. Units without a concept and dead units count as 0, so a dictionary cannot gain by
    having few units with a concept. In [0, 1], higher is better.
    """
    return (facets.reached.sum(1) >= MULTIMODAL_FACETS).double()


def facet_scores(units: Units, n_candidates: int | None = None) -> list[Measured]:
    """Score how units at a visual hookpoint carry their concepts across facets, seen and unseen ones apart.

    Args:
        units: what to score.
        n_candidates: units of the smallest set that this one is compared with, for the scores with equal candidates.

    Raises:
        EvaluationError: the sample has no facets, or too few pictures per concept.
    """
    facets = Facets(units)
    found = [multimodal_share(facets)]
    if (facets.concept >= 0).any():
        found += [facet_breadth(facets), facets_reached(facets)]
    of_concepts = [metric(facets) for (facet, _), metric in FACET_METRICS.items() if facet in facets.shown.facet_names]
    of_concepts += [concept_auc_seen(facets), concept_auc_unseen(facets)]
    if n_candidates is not None:
        of_concepts += [concept_auc_seen_equal(facets, n_candidates), concept_auc_unseen_equal(facets, n_candidates)]
    return found + [measured for measured in of_concepts if not measured.values.isnan().all()]


def facet_details(units: Units) -> dict[str, Any]:
    """Return the literal-symbolic-conceptual table: how many units carry their concept in which readings.

    A photo or a sketch is literal, an emblem symbolic, a written word conceptual; a unit carries a reading if it
    reaches a facet of it. `unseen` counts, by held-out facet, units whose concept has it and those that reach it.
    """
    facets = Facets(units)
    shown, reached = facets.shown, facets.reached
    owners = (facets.concept >= 0).nonzero()[:, 0].tolist()
    table: Counter[str] = Counter()
    for unit in owners:
        names = [
            READINGS.get(shown.facet_names[i], shown.facet_names[i]) for i in reached[unit].nonzero()[:, 0].tolist()
        ]
        table[" + ".join(name for name in dict.fromkeys(READINGS.values()) if name in names) or "none"] += 1
    held = shown.unseen_pairs[facets.concept.clamp(min=0)] & (facets.concept >= 0)[:, None]
    unseen = {
        name: {"units": int(held[:, i].sum()), "reached": int((held & reached)[:, i].sum())}
        for i, name in enumerate(shown.facet_names)
    }
    return {
        "units": units.n_units,
        "with_concept": len(owners),
        "concepts_with_unit": len(set(facets.concept[owners].tolist())),
        "readings": dict(table.most_common()),
        "reached": {name: int(reached[:, i].sum()) for i, name in enumerate(shown.facet_names)},
        "unseen": unseen,
    }

"""Does one unit stand for its concept however it is shown: as a photo, a sketch, a written word, an emblem?

A unit's *concept* is the one it detects best among the pictures of the half to match on whose facet the subject saw in
training; units that detect none with an AUC above 0.8 have no concept. Everything else is measured on other pictures.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.meanings import MIXED_AUC
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.responses import own_auc
from sae.evaluation.sample import MIN_POSITIVES, Units

READINGS = {"photo": "literal", "sketch": "literal", "symbol": "symbolic", "word": "conceptual"}
"""What each facet of the concept world asks of a unit, in the words of Goh et al. 2021."""
MULTIMODAL_FACETS = 3
"""Facets that a unit has to reach to count as multimodal."""


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
        sample, needed = units.sample, ("concept", "facet", "held_out_facet")
        missing = [name for name in needed if name not in sample.factors]
        if missing or not sample.pooled:
            raise EvaluationError(
                f"multimodality: needs pictures with the factors {', '.join(needed)}; the sample lacks "
                f"{', '.join(missing) or 'pooled rows'}. Evaluate on inputs of kind 'concepts'."
            )
        concept, facet, unseen = (torch.from_numpy(np.asarray(sample.factors[name])) for name in needed)
        names = (tuple(sample.label_names[name]) for name in ("concept", "facet"))
        return cls(concept.long(), facet.long(), unseen == 1, sample.match, *names)

    @cached_property
    def scored(self) -> Int[Tensor, " concepts"]:
        """Concepts with enough seen pictures in the half to match on."""
        counts = torch.bincount(self.concept[self.match & ~self.unseen], minlength=len(self.concept_names))
        found = (counts >= MIN_POSITIVES).nonzero()[:, 0]
        if not len(found):
            raise EvaluationError(
                f"multimodality: no concept has {MIN_POSITIVES} seen pictures; evaluate more of them."
            )
        return found


class Facets:
    """The concept of every unit, the unit of every concept, and what each facet of it calls forth.

    Attributes:
        concept: of each unit, numbered as in `shown.concept_names`; -1 where it has none.
        best: the unit that detects each concept of `shown.scored` best.
    """

    def __init__(self, units: Units) -> None:
        self.units, self.shown = units, Faceted.of(units)
        shown = self.shown
        matching = shown.match & ~shown.unseen
        columns = shown.concept[matching, None] == shown.scored
        auc = units.responses.on(matching).auc(columns)
        top = auc.max(1)
        self.concept = torch.where(top.values > MIXED_AUC, shown.scored[top.indices], -1)
        self.best = auc.argmax(0)

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

    def best_auc(self, unseen: bool) -> Float[Tensor, " concepts"]:
        """AUC of each concept's unit within facets, on pictures that were not matched on; the mean over facets.

        Within a facet, pictures of the concept are told from those of other concepts, so a unit for the facet gains
        nothing. nan where a concept has no such pictures.
        """
        shown, found = self.shown, []
        usable = torch.ones_like(shown.match) if unseen else ~shown.match
        activations = self.units.responses.columns(self.best)
        for facet in range(len(shown.facet_names)):
            kept = usable & (shown.facet == facet)
            own = shown.concept[kept, None] == shown.scored
            asked = (own & (shown.unseen[kept] == unseen)[:, None]).any(0)
            values = own_auc(activations[kept], own)
            found.append(torch.where(asked, values, torch.nan))
        return torch.stack(found).nanmean(0)


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


@item_metric("facet_auc_seen", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def facet_auc_seen(facets: Facets) -> Float[Tensor, " concepts"]:
    """AUC of the best unit of each concept within facets that the subject saw of it in training.

    The unit is matched on seen pictures of one half and scored on those of the other. Within a facet the concept's
    pictures are told from other concepts' pictures in the same facet; the mean over facets. In [0, 1], chance 0.5,
    higher is better; a dead unit scores 0.5.
    """
    return facets.best_auc(unseen=False)


@item_metric("facet_transfer", better="higher", unit="concepts", bounds=(0, 1), chance=0.5, paired=True)
def facet_transfer(facets: Facets) -> Float[Tensor, " concepts"]:
    """AUC of the best unit of each concept in the facet of it that the subject never saw in training.

    As `facet_auc_seen`, on the concept's held-out facet alone: those pictures of both halves, for neither was matched
    on. Only this supports a claim that units carry a concept across modalities by themselves. Concepts without a
    held-out facet are left out. In [0, 1], chance 0.5, higher is better; a dead unit scores 0.5.
    """
    return facets.best_auc(unseen=True)


def facet_scores(units: Units) -> list[Measured]:
    """Score how units at a visual hookpoint carry their concepts across facets.

    Raises:
        EvaluationError: the sample has no facets, or too few pictures per concept.
    """
    facets = Facets(units)
    found = [multimodal_share(facets), facet_auc_seen(facets)]
    if (facets.concept >= 0).any():
        found += [facet_breadth(facets), facets_reached(facets)]
    if facets.shown.unseen.any():
        found.append(facet_transfer(facets))
    return found


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
    held = torch.zeros(len(shown.concept_names), len(shown.facet_names), dtype=torch.bool)
    held[shown.concept[shown.unseen], shown.facet[shown.unseen]] = True
    held = held[facets.concept.clamp(min=0)] & (facets.concept >= 0)[:, None]
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


@item_metric("text_agreement", better="higher", unit="latents", bounds=(0, 1), chance=0.5, paired=False)
def text_agreement(
    units: Units,
    facets: Facets,
    image_embedding: Float[Tensor, "items d_joint"],
    text_embedding: Float[Tensor, "concepts d_joint"],
) -> Float[Tensor, " units"]:
    """How near the top the text of a unit's own concept stands among the texts of all concepts.

    The unit's place in the joint space is the covariance of its activation with the image embeddings over the half to
    score on (for a unit that is never negative the same direction as the activation-weighted mean embedding minus the
    mean embedding); texts are compared with it by the cosine, after their own mean is taken off, as image and text
    embeddings lie apart. The value is the share of other concepts' texts that are less similar, ties counting half: the
    AUC of the one right text. In [0, 1], chance 0.5, higher is better. Units without a concept are left out; a unit
    that is silent on the half to score on scores 0.5.
    """
    scoring = ~facets.shown.match
    images = image_embedding[scoring].double()
    place = units.responses.on(scoring).total(images - images.mean(0))
    texts = text_embedding.double() - text_embedding.double().mean(0)
    cosine = torch.nn.functional.normalize(place, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    own = cosine.gather(1, facets.concept.clamp(min=0)[:, None])
    below = (cosine < own).sum(1) + ((cosine == own).sum(1) - 1) / 2
    return torch.where(facets.concept >= 0, below.double() / (len(texts) - 1), torch.nan)


def text_scores(
    units: Units, image_embedding: Float[Tensor, "items d_joint"], text_embedding: Float[Tensor, "concepts d_joint"]
) -> list[Measured]:
    """Compare units of a visual hookpoint with the text tower; empty where no unit has a concept.

    Args:
        units: on a sample with facets.
        image_embedding: of every item of the sample, in the joint space.
        text_embedding: of every concept, in the order of the sample's `label_names["concept"]`.
    """
    facets = Facets(units)
    if not (facets.concept >= 0).any():
        return []
    return [text_agreement(units, facets, image_embedding, text_embedding)]


@item_metric("modality_share", better="neither", unit="latents", bounds=(0, 1), chance=None, paired=False)
def modality_share(images: Units, texts: Units) -> Float[Tensor, " units"]:
    """Share of a unit's mean activation that comes from images rather than texts: E_img / (E_img + E_txt).

    For a dictionary on the joint space, run on images and on texts; negative activations count as 0. In [0, 1]: 1 fires
    on images alone, 0 on texts alone, 0.5 on both alike. Units that fire on neither are left out. Read it as a
    distribution; its mean says little. Formula after Papadimitriou et al. 2025 (arXiv 2504.11695).
    """
    image, text = _mean_positive(images), _mean_positive(texts)
    return image / (image + text)


def modality_scores(images: Units, texts: Units) -> list[Measured]:
    """Score one dictionary of the joint space on images and on texts.

    Raises:
        EvaluationError: the two do not have the same units.
    """
    if images.n_units != texts.n_units:
        raise EvaluationError(f"modality_share: {images.n_units} units on images, {texts.n_units} on texts.")
    return [modality_share(images, texts)]


def _mean_positive(units: Units) -> Float[Tensor, " units"]:
    return torch.cat([block.clamp(min=0).double().mean(0) for _, block in units.responses.blocks()])

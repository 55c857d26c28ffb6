"""Every family of metrics that needs labels, run alike on a dictionary's latents and on any control."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from sae.evaluation.dissection import Masks, dissection_scores
from sae.evaluation.explanations import explanation_details, explanation_scores
from sae.evaluation.facets import FACTORS, facet_details, facet_scores
from sae.evaluation.joint_space import text_scores
from sae.evaluation.labels import label_scores, label_table
from sae.evaluation.metric import Measured
from sae.evaluation.pairs import pair_details, pair_scores
from sae.evaluation.patterns import Patterns
from sae.evaluation.resolution import Mixtures, resolution_details, resolution_scores
from sae.evaluation.sample import Sample, Units
from sae.evaluation.similarity import Similarity, similarity_details, similarity_scores

ENTROPY_FAMILIES = ("concept", "class", "role")
"""Families of labels whose entropy is taken: the first that says something of every item."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What the families need beside the units: made once, shared by the dictionary and the controls.

    Attributes:
        n_candidates: units of the smallest set that is compared.
        n_explained: units whose explanation is scored.
        similarity: where items are compared with one another.
        mixtures: what the raw neurons mix, where units are to write these neurons.
        patterns: tokens in context, for text.
        decode: the text of a token.
        masks: where on its images the labels are, where that is known.
        embeddings: of the items and of the classes, in the joint space, where there is one.
        pairs: images that differ in one factor, where they can be made.
        seed: decides what is drawn.
    """

    n_candidates: int
    n_explained: int
    similarity: Similarity
    mixtures: Mixtures | None = None
    patterns: Patterns | None = None
    decode: Callable[[int], str] = str
    masks: Masks | None = None
    embeddings: tuple[Float[Tensor, "items d_joint"], Float[Tensor, "classes d_joint"]] | None = None
    pairs: Sample | None = None
    seed: int = 0


def measure(units: Units, ground: Ground) -> list[Measured]:
    """Score units, a dictionary's latents or a control's, by every family that the ground allows."""
    measured = label_scores(units, ground.n_candidates)
    measured += similarity_scores(units, ground.similarity, entropy_family(units.sample))
    if ground.mixtures is not None:
        measured += resolution_scores(units, ground.mixtures)
    if ground.patterns is not None:
        measured += explanation_scores(units, ground.patterns, ground.n_explained, ground.seed)
    if has_facets(units.sample):
        measured += facet_scores(units, ground.n_candidates)
        if ground.embeddings is not None:
            measured += text_scores(units, *ground.embeddings)
    if ground.masks is not None:
        measured += dissection_scores(units, ground.masks, ground.n_candidates)
    if ground.pairs is not None:
        measured += pair_scores(Units(units.name, units.dictionary, ground.pairs))
    return measured


def tables(units: Units) -> dict[str, Any]:
    """Return the tables that are shown of the neurons too: of labels, and of facets where there are any."""
    return {"labels": label_table(units)} | ({"facets": facet_details(units)} if has_facets(units.sample) else {})


def details(units: Units, neurons: dict[str, Any], ground: Ground, measured: list[Measured]) -> dict[str, Any]:
    """Return what is not one number about a dictionary, beside the `tables` of the neurons."""
    found: dict[str, Any] = {
        **{name: {"dictionary": table, "neurons": neurons[name]} for name, table in tables(units).items()},
        "similarity": similarity_details(ground.similarity, entropy_family(units.sample)),
    }
    if ground.mixtures is not None:
        found["resolution"] = resolution_details(units, ground.mixtures)
    if ground.patterns is not None:
        correlation = next(one for one in measured if one.definition.name == "explanation_correlation")
        found["explanations"] = explanation_details(units, ground.patterns, correlation, ground.decode)
    if ground.pairs is not None:
        found["pairs"] = pair_details(Units(units.name, units.dictionary, ground.pairs))
    return found


def has_facets(sample: Sample) -> bool:
    """Whether the items show concepts in facets, and which of these the subject was trained on."""
    return sample.pooled and set(FACTORS) <= sample.factors.keys()


def entropy_family(sample: Sample) -> str | None:
    """Return the family of labels that `label_entropy` is taken over."""
    known = (family for family in ENTROPY_FAMILIES if family in sample.labels)
    return next((family for family in known if (sample.labels[family] >= 0).all()), None)

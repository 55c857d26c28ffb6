"""Do the two towers agree: units of images beside texts in the joint space, and units of the joint space itself."""

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.facets import Facets
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.responses import Responses
from sae.evaluation.sample import Units


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
    AUC of the one right text. In [0, 1], chance 0.5, higher is better. Units without a concept (see `facet_breadth`)
    are left out; a unit that is silent on the half to score on scores 0.5.
    """
    scoring = ~facets.shown.match
    cosine = text_cosines(joint_places(units.responses.on(scoring), image_embedding[scoring]), text_embedding)
    own = cosine.gather(1, facets.concept.clamp(min=0)[:, None])
    below = (cosine < own).sum(1) + ((cosine == own).sum(1) - 1) / 2
    return torch.where(facets.concept >= 0, below.double() / (len(text_embedding) - 1), torch.nan)


def joint_places(responses: Responses, embedding: Float[Tensor, "items d_joint"]) -> Float[Tensor, "units d_joint"]:
    """Return the place of each unit in the joint space: the covariance of its activation with the items' embeddings.

    Lengths mean nothing; a silent unit has none.
    """
    embedding = embedding.double()
    return responses.total(embedding - embedding.mean(0))


def text_cosines(
    places: Float[Tensor, "units d_joint"], texts: Float[Tensor, "texts d_joint"]
) -> Float[Tensor, "units texts"]:
    """Return the cosine of places with texts, after the texts' own mean is taken off them."""
    texts = texts.double() - texts.double().mean(0)
    return torch.nn.functional.normalize(places, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T


def text_scores(
    units: Units, image_embedding: Float[Tensor, "items d_joint"], text_embedding: Float[Tensor, "concepts d_joint"]
) -> list[Measured]:
    """Compare units of a visual hookpoint with the text tower; empty where no unit has a concept.

    Args:
        units: on a sample with facets.
        image_embedding: of every item of the sample, in the joint space.
        text_embedding: of every concept, in the order of the sample's `label_names["concept"]`.

    Raises:
        EvaluationError: an embedding is not finite, or the texts are not those of the concepts.
    """
    facets = Facets(units)
    if not (image_embedding.isfinite().all() and text_embedding.isfinite().all()):
        raise EvaluationError("text_agreement: the joint space holds NaN or infinite values.")
    n_concepts = len(facets.shown.concept_names)
    if len(text_embedding) != n_concepts:
        raise EvaluationError(f"text_agreement: {len(text_embedding)} texts for {n_concepts} concepts.")
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

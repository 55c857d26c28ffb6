"""Are the items that a unit responds to alike? Monosemanticity Score, clarity and label entropy.

Alike in what is the whole question: two items are as similar as the cosine of their embeddings, and the embedding
comes from the exact labels (`factor_embedding`), or from an encoder that is independent of the subject. In the
subject's own space a unit looks consistent because that space put its items together; such scores are *circular*.

Nothing is matched here, so every item counts, not one half alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sae.errors import EvaluationError, nearest
from sae.evaluation.metric import Better, Measured, item_metric
from sae.evaluation.responses import Responses, SparseResponses
from sae.evaluation.sample import Sample, Units
from sae.evaluation.weights import UNITS_AT_ONCE, Weights

TOP_ITEMS = 20
"""Items that clarity and label entropy look at; more where several tie with the last of them."""
FEATURES_AT_ONCE = 512
"""Columns of an embedding that are summed in float64 at a time."""
_NO_PAIR = 1e-9
"""Share of the squared weights below which what is left for pairs is rounding."""


@dataclass(frozen=True)
class Similarity:
    """Where items are compared.

    Attributes:
        name: of the space, for the report.
        embedding: one row of length 1 per item; a row of zeros resembles nothing.
        circular: whether the space is the subject's own, so that units are judged by what made them.

    Raises:
        EvaluationError: a value is not finite, or all items are the same.
    """

    name: str
    embedding: Float[Tensor, "items features"] | Weights
    circular: bool = False

    def __post_init__(self) -> None:
        if not self.square_norms.isfinite().all():
            raise EvaluationError(f"similarity {self.name!r}: the embedding holds NaN or infinite values.")
        if self.baseline > 1 - 1e-6:
            raise EvaluationError(f"similarity {self.name!r}: all items are the same, so nothing can be told apart.")

    @classmethod
    def of_vectors(cls, name: str, vectors: Float[Tensor, "items features"], circular: bool = False) -> "Similarity":
        """Compare items by the cosine of any vectors."""
        return cls(name, F.normalize(vectors.float(), dim=1), circular)

    @classmethod
    def of_factors(cls, sample: Sample, families: Sequence[str] | None = None) -> "Similarity":
        """Compare items by their exact labels (see `factor_embedding`)."""
        name = "labels" if families is None else "+".join(families)
        return cls(name, factor_embedding(sample, families))

    @property
    def n_items(self) -> int:
        return self.embedding.n_items if isinstance(self.embedding, Weights) else len(self.embedding)

    @cached_property
    def square_norms(self) -> Float[Tensor, " items"]:
        if isinstance(self.embedding, Weights):
            return self.embedding.square_norms
        return torch.linalg.vecdot(self.embedding, self.embedding).double()

    @cached_property
    def baseline(self) -> float:
        """Mean cosine of two different items: what a unit with random activations scores on average."""
        n, embedding = self.n_items, self.embedding
        total = embedding.totals if isinstance(embedding, Weights) else embedding.sum(0, dtype=torch.float64)
        square = float(total.square().sum())
        return (square - float(self.square_norms.sum())) / max(n * n - n, 1)

    def parts(self) -> Iterator[tuple[Float[Tensor, "items features"] | Weights, Float[Tensor, " features"]]]:
        """Yield the embedding in float64, some features at a time, with the sum over items."""
        if isinstance(self.embedding, Weights):
            yield self.embedding, self.embedding.totals
        else:
            for part in self.embedding.split(FEATURES_AT_ONCE, 1):
                yield part.double(), part.sum(0, dtype=torch.float64)

    def above_chance(self, cosine: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
        """Rescale mean cosines so that chance is 0 and identical items 1."""
        return (cosine - self.baseline) / (1 - self.baseline)


def factor_embedding(sample: Sample, families: Sequence[str] | None = None) -> Weights:
    """Return exact labels as unit vectors: one block of zeros and a one per family, side by side.

    Every family weighs the same. The cosine of two items is the number of families with the same value, over the
    geometric mean of how many families say anything of each. A family that says nothing of an item is zero there.

    Args:
        sample: whose factors to take.
        families: which of its factors; by default all that are scored as labels and are not continuous.

    Raises:
        EvaluationError: a family is unknown or continuous.
    """
    if families is None:
        families = [family for family, values in sample.labels.items() if values.dtype.kind != "f"]
    blocks = Weights.beside([Weights.of_groups(*_values(sample, family)) for family in families])
    return blocks.scaled(blocks.square_norms.clamp(min=1).rsqrt())


def _values(sample: Sample, family: str) -> tuple[Int[Tensor, " items"], int]:
    """Return the number of each item's value within a family, -1 where it says nothing, and how many there are."""
    if family not in sample.factors:
        raise EvaluationError(f"similarity: no family {family!r}.{nearest(family, sample.factors)}")
    values = sample.factors[family]
    if values.dtype.kind == "f":
        raise EvaluationError(
            f"similarity: family {family!r} is continuous; items are compared by families of classes."
        )
    distinct, number = np.unique(values, return_inverse=True)
    silent = np.isin(distinct, ("",) if distinct.dtype.kind == "U" else (-1,))
    renumbered = np.where(silent, -1, np.cumsum(~silent) - 1)
    return torch.from_numpy(renumbered[number]), int((~silent).sum())


def mean_cosine(responses: Responses, similarity: Similarity) -> Float[Tensor, " units"]:
    """Return the mean cosine over pairs of items, weighted by the product of their min-max normalised activations.

    With weights w and embeddings e the sum over pairs is (|sum w e|^2 - sum w^2 |e|^2) / 2, and over the products of
    weights alone ((sum w)^2 - sum w^2) / 2: one pass over activations, no pair is formed. Units without a pair of
    items, dead or constant ones too, get the baseline.
    """
    low = responses.minimum.double()
    high = responses.maximum.double()
    norms = torch.stack([torch.ones_like(similarity.square_norms), similarity.square_norms], 1)
    # The sums of (a - low) follow from those of a; the division by (high - low) cancels in the ratio.
    plain, squares = responses.total(norms), responses.total(norms, power=2)
    weight = plain[:, 0] - low * responses.n_items
    squared = squares - 2 * low[:, None] * plain + low[:, None] ** 2 * norms.sum(0)
    resultant = torch.zeros(responses.n_units, dtype=torch.float64)
    for part, total in similarity.parts():
        some_units = zip(responses.parts(), low.split(UNITS_AT_ONCE), strict=True)
        resultant += torch.cat(
            [(some.total(part) - lowest[:, None] * total).square().sum(1) for some, lowest in some_units]
        )
    pairs = weight**2 - squared[:, 0]
    some = (high > low) & (pairs > _NO_PAIR * squared[:, 0])
    return torch.where(some, (resultant - squared[:, 1]) / pairs.where(some, 1), similarity.baseline)


class _Pair(NamedTuple):
    """A metric of the pooled activations of an item, and the same of its class token's."""

    pooled: Callable[..., Measured]
    class_token: Callable[..., Measured]


def _similarity_metric(
    name: str, *, better: Better, bounds: tuple[float, float], chance: float | None
) -> Callable[[Callable[..., Float[Tensor, " units"]]], _Pair]:
    """Register a function of responses twice: a class token is scored apart from the maximum over patches."""

    def decorate(function: Callable[..., Float[Tensor, " units"]]) -> _Pair:
        def of_class_token(*args: Any) -> Float[Tensor, " units"]:
            return function(*args)

        of_class_token.__doc__ = f"{function.__doc__}\n\n    Here of the activations of the class token alone."
        kind = {"better": better, "unit": "latents", "bounds": bounds, "chance": chance, "paired": False}
        return _Pair(item_metric(name, **kind)(function), item_metric(f"{name}_class", **kind)(of_class_token))

    return decorate


@_similarity_metric("monosemanticity", better="higher", bounds=(-1.0, 1.0), chance=None)
def monosemanticity(responses: Responses, similarity: Similarity) -> Float[Tensor, " units"]:
    """Monosemanticity Score: how alike the items are that a unit responds to, weighted by how strongly it does.

    MS = sum of a_n a_m cos(e_n, e_m) / sum of a_n a_m over all pairs of different items n, m, where a is the unit's
    activation, min-max normalised over the items, and e an item's embedding (Pach et al. 2025, arXiv 2504.02821).
    Exact, by a closed form. In [-1, 1]; a unit with random activations scores the mean cosine of all pairs, which is
    far above 0 in many embeddings: compare `monosemanticity_excess`. Units without two items to compare, dead ones
    too, score that mean.
    """
    return mean_cosine(responses, similarity)


@_similarity_metric("monosemanticity_excess", better="higher", bounds=(-math.inf, 1.0), chance=0.0)
def monosemanticity_excess(score: Measured, similarity: Similarity) -> Float[Tensor, " units"]:
    """Monosemanticity Score above its chance: (MS - b) / (1 - b), b the mean cosine of all pairs of items.

    0 for random activations and for dead units, 1 where all items of a unit have the same embedding; below 0 where
    they are less alike than items drawn at random. With an embedding of several label families 1 asks for items that
    agree in all of them, so a unit that is perfectly selective for one family stays below it.
    """
    return similarity.above_chance(score.values)


@_similarity_metric("clarity", better="higher", bounds=(-math.inf, 1.0), chance=0.0)
def clarity(strongest: SparseResponses, similarity: Similarity) -> Float[Tensor, " units"]:
    """Clarity: how alike the items are on which a unit is most active, above chance.

    (c - b) / (1 - b), where c is the mean cosine over pairs of the 20 items with the largest activations and b that
    of all pairs (Dreyer et al. 2025, Mechanistic understanding and validation of large AI models with SemanticLens).
    Only items on which the unit fires count, and all that tie with the last one. 0 is chance, and is what units
    that fire on fewer than two items score, dead ones too; 1 where all those items have the same embedding.
    """
    alike = SparseResponses(strongest.offsets, strongest.items, torch.ones_like(strongest.values), strongest.n_items)
    return similarity.above_chance(mean_cosine(alike, similarity))


@_similarity_metric("label_entropy", better="lower", bounds=(0.0, 1.0), chance=None)
def label_entropy(strongest: Responses, values: Weights) -> Float[Tensor, " units"]:
    """Entropy of one family's labels over the items on which a unit is most active, weighted by activation.

    p_v = the share of the activation, summed over the 20 items with the largest activations, that falls on items
    with value v; the score is -sum p_v log p_v / log min(n, number of values), n the items that count: those on which
    the unit fires, ties with the last one included (unnormalised in PatchSAE, Lim et al. 2025, arXiv 2412.05276).
    In [0, 1], lower is better: 0 where all have the same value, 1 where all differ as much as they can. Chance lies
    below 1 and depends on the frequencies of the values (see the shuffled control). Units that fire on fewer than
    two items show nothing and score 1, dead ones too.
    """
    n_items = strongest.n_fired
    mass = strongest.total(values)
    share = mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    entropy = torch.special.entr(share).sum(1)
    # A hair above the largest possible entropy may come from rounding.
    scaled = (entropy / n_items.clamp(2, values.n_features).double().log()).clamp(max=1)
    return torch.where(n_items < 2, 1.0, scaled)


def similarity_scores(units: Units, similarity: Similarity, family: str | None = None) -> list[Measured]:
    """Return the similarity scores of units, the class token apart from the maximum over patches.

    Args:
        units: what is scored.
        similarity: where its items are compared.
        family: of labels, for `label_entropy`; it must say something of every item. None leaves that metric out.

    Raises:
        EvaluationError: the family is unknown, continuous, or says nothing of some item.
    """
    sample, found = units.sample, []
    assert similarity.n_items == sample.n_items, (similarity.n_items, sample.n_items)
    values = None if family is None else _complete(sample, family)
    for number, responses in enumerate((units.responses, units.class_responses)):
        if responses is None:
            continue
        strongest = responses.at_least(responses.kth_largest(min(TOP_ITEMS, responses.n_items)))
        score = monosemanticity[number](responses, similarity)
        found += [score, monosemanticity_excess[number](score, similarity), clarity[number](strongest, similarity)]
        if values is not None:
            found.append(label_entropy[number](strongest, values))
    return found


def similarity_details(similarity: Similarity, family: str | None) -> dict[str, Any]:
    """Return what the similarity scores are to be read with, as plain JSON."""
    return {
        "embedding": similarity.name,
        "circular": similarity.circular,
        "baseline": similarity.baseline,
        "label_entropy_family": family,
    }


def _complete(sample: Sample, family: str) -> Weights:
    """Return the values of a family as columns, where every item has one."""
    values, n_values = _values(sample, family)
    if n_values < 2 or (values < 0).any():
        raise EvaluationError(
            f"label entropy: family {family!r} has {n_values} values and says nothing of {int((values < 0).sum())} of "
            f"{len(values)} items; name a family with two values or more that says something of every item."
        )
    return Weights.of_groups(values, n_values)

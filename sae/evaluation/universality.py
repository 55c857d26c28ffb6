"""Do two subjects, or two dictionaries, have units that do the same: correlation of activations on shared rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.products import moments, products
from sae.evaluation.responses import Responses, SparseResponses


@dataclass(frozen=True)
class Partners:
    """The unit of a second dictionary whose activations correlate most with each unit of a first.

    Attributes:
        partner: chosen on the items to match on; -1 where nothing correlates with the unit above 0.
        chosen_at: the correlation it was chosen by, which is flattered by the choice.
        held_out: the correlation on the other items; 0 without a partner, and where either is constant there.
    """

    partner: Int[Tensor, " units"]
    chosen_at: Float[Tensor, " units"]
    held_out: Float[Tensor, " units"]


@item_metric("universality", better="higher", unit="latents", bounds=(-1.0, 1.0), chance=0.0, paired=False)
def universality(partners: Partners) -> Float[Tensor, " latents"]:
    """Pearson correlation of a latent's activations with those of its best partner in another dictionary.

    The activations are taken on the same inputs at the same positions, so the dictionaries may belong to different
    subjects. As the feature similarity of Bricken et al. 2023, Towards Monosemanticity (median .72 for features of two
    one-layer models, .46 for their neurons, on 41 M tokens), except that the partner is the best on one half of the
    examples and the correlation is that on the other half, so that choosing among thousands does not flatter. Higher
    is better; a dictionary and itself score 1. Latents that never vary on either half count as 0. What it is beside
    raw neurons, random directions of the same number, and partners on shuffled rows is what counts: common tokens
    correlate everything.
    """
    return partners.held_out


def universality_scores(one: Responses, two: Responses, match: Bool[Tensor, " items"]) -> list[Measured]:
    """Return the metric for the units of the first.

    Raises:
        EvaluationError: the responses are not on the same number of items.
    """
    return [universality(best_partners(one, two, match))]


def best_partners(one: Responses, two: Responses, match: Bool[Tensor, " items"]) -> Partners:
    """Choose partners on the items marked in `match` and correlate them on the others.

    Raises:
        EvaluationError: the responses are not on the same number of items.
    """
    if not one.n_items == two.n_items == len(match):
        raise EvaluationError(
            f"universality: units of {one.n_items} and {two.n_items} items cannot be compared; both must be read on "
            f"the same rows, of which {len(match)} are split in halves."
        )
    found = [block.max(1) for _, block in correlations(one.on(match), two.on(match))]
    chosen_at, partner = (torch.cat([getattr(best, part) for best in found]) for part in ("values", "indices"))
    held_out = [
        block.gather(1, partner[first : first + len(block), None])[:, 0]
        for first, block in correlations(one.on(~match), two.on(~match))
    ]
    some = chosen_at > 0
    return Partners(torch.where(some, partner, -1), chosen_at, torch.where(some, torch.cat(held_out), 0.0))


def correlations(one: Responses, two: Responses) -> Iterator[tuple[int, Float[Tensor, "block others"]]]:
    """Yield the Pearson correlations of consecutive units of the first with all of the second; 0 for constant units."""
    n = one.n_items
    (sums, squares), (other_sums, other_squares) = moments(one), moments(two)
    scale, other_scale = _scale(sums, squares, n), _scale(other_sums, other_squares, n)
    for first, block in products(one, two):
        rows = slice(first, first + len(block))
        covariance = block - sums[rows, None] * (other_sums / n)
        yield first, (covariance * scale[rows, None] * other_scale).clamp(-1, 1)


def shuffled_items(responses: SparseResponses, group: Shaped[Tensor, " items"], seed: int) -> SparseResponses:
    """Return the same activations dealt out to other items of the same group: what is left, the groups explain."""
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))
    place = torch.empty(len(group), dtype=torch.int32)
    place[group.argsort(stable=True)] = order[group[order].argsort(stable=True)].int()
    return SparseResponses(responses.offsets, place[responses.items.long()], responses.values, responses.n_items)


def _scale(sums: Float[Tensor, " units"], squares: Float[Tensor, " units"], n: int) -> Float[Tensor, " units"]:
    """Return 1 / the root of the summed squared deviations, 0 for units that vary no more than rounding does."""
    deviation = squares - sums.square() / max(n, 1)
    varies = deviation > 1e-12 * squares
    return torch.where(varies, deviation.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)

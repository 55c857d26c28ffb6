"""Do two dictionaries of the same hookpoint find the same latents: directions matched one to one.

Sums over directions only; which latents are alive must come from data, and is passed in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.initialisation import random_unit_rows
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.sample import CONTROL_SEED

STABLE_COSINE = 0.7
EXACT_LATENTS = 8192
"""Latents up to which the matching is the best possible one; the solver holds their float64 cosines, 512 MiB."""
_ROWS = 2048

Directions = Float[Tensor, "latents d_in"]
OtherDirections = Float[Tensor, "others d_in"]


@dataclass(frozen=True)
class Matching:
    """Latents of a first dictionary matched one to one to those of a second, once per kind of direction.

    Attributes:
        partner: matched latent of the second by decoder; -1 where there is none (dead, or the second is smaller).
        cosine: cosine of the matched decoder rows; 0 without a partner.
        encoder_partner: matched latent by encoder.
        encoder_cosine: cosine of the encoder columns so matched.
        max_cosine: largest cosine with any live latent of the second by decoder; 0 for dead latents.
        method: "hungarian" or, above `EXACT_LATENTS` latents, "greedy".
    """

    partner: Int[Tensor, " latents"]
    cosine: Float[Tensor, " latents"]
    encoder_partner: Int[Tensor, " latents"]
    encoder_cosine: Float[Tensor, " latents"]
    max_cosine: Float[Tensor, " latents"]
    method: str


@item_metric("stability", better="higher", unit="latents", bounds=(-1.0, 1.0), chance=None, paired=False)
def stability(matching: Matching) -> Float[Tensor, " latents"]:
    """Cosine between a latent's decoder row and that of its partner in a dictionary trained with another seed.

    Partners are assigned one to one so that the sum of cosines is largest (the Hungarian method; above 8,192 latents
    greedily, the most similar pair first). Higher is better; identical dictionaries score 1, whatever their order.
    Unrelated directions score what the control of random unit rows of the same number and width scores. Latents that
    are dead in either dictionary are not matched; those of the first count as 0.
    """
    return matching.cosine


@item_metric("stable_share", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def stable_share(matching: Matching) -> Float[Tensor, " latents"]:
    """Share of latents that recur under another seed: matched decoder cosine (see `stability`) above 0.7.

    Higher is better; dead latents count as not recurring. Laxer than `shared_share`.
    """
    return (matching.cosine > STABLE_COSINE).double()


@item_metric("shared_share", better="higher", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def shared_share(matching: Matching) -> Float[Tensor, " latents"]:
    """Share of latents that recur by encoder and by decoder: both matchings give the same partner, cosines above 0.7.

    Matchings by decoder rows and by encoder columns are made apart, as in Paulo and Belrose 2025, Sparse Autoencoders
    Trained on the Same Data Learn Different Features, arXiv 2501.16615, who find about 30 % of 131k latents of a
    Llama 3 8B MLP shared. Here each of the two cosines has to exceed 0.7. Higher is better; dead latents count as not
    shared.
    """
    same = (matching.partner >= 0) & (matching.partner == matching.encoder_partner)
    above = (matching.cosine > STABLE_COSINE) & (matching.encoder_cosine > STABLE_COSINE)
    return (same & above).double()


@item_metric("max_cosine", better="higher", unit="latents", bounds=(-1.0, 1.0), chance=None, paired=False)
def max_cosine(matching: Matching) -> Float[Tensor, " latents"]:
    """Largest cosine between a latent's decoder row and any live latent's of the other dictionary.

    Not one to one, so several latents may share a partner: never below `stability`, except that both count 0 for a
    dead latent. The mean is the mean maximum cosine similarity (Sharkey, Braun, Millidge 2022, Taking features out of
    superposition with sparse autoencoders). Higher is better.
    """
    return matching.max_cosine


def stability_scores(matching: Matching) -> list[Measured]:
    """Return all metrics of a matching."""
    return [metric(matching) for metric in (stability, stable_share, shared_share, max_cosine)]


def match_dictionaries(
    one: Dictionary,
    two: Dictionary,
    alive: tuple[Bool[Tensor, " latents"], Bool[Tensor, " others"]] | None = None,
) -> Matching:
    """Match two dictionaries by decoder and by encoder.

    Args:
        one: whose latents get partners.
        two: where the partners come from.
        alive: latents of each that fire on data; all by default.

    Raises:
        EvaluationError: the dictionaries are for vectors of different widths.
    """
    if one.d_in != two.d_in:
        raise EvaluationError(
            f"stability: the dictionaries are for vectors of width {one.d_in} and {two.d_in}; directions can only be "
            "compared in one space."
        )
    return _match((one.W_dec, one.W_enc_rows), (two.W_dec, two.W_enc_rows), alive)


def match_random(one: Dictionary, alive: Bool[Tensor, " latents"], seed: int) -> Matching:
    """Match a dictionary to as many random unit rows: the control of `stability`."""
    rows = random_unit_rows(one.d_sae, one.d_in, torch.Generator().manual_seed(CONTROL_SEED + seed))
    return _match((one.W_dec, one.W_enc_rows), (rows, rows), (alive, torch.ones(len(rows), dtype=torch.bool)))


def assign(one: Directions, two: OtherDirections) -> tuple[Int[Tensor, " latents"], Float[Tensor, " latents"]]:
    """Assign rows one to one by cosine; return each row's partner, -1 without one, and the cosine, 0 without one."""
    one, two = _unit(one), _unit(two)
    partner = torch.full((len(one),), -1)
    if max(len(one), len(two)) <= EXACT_LATENTS:
        from scipy.optimize import linear_sum_assignment

        # The solver copies what it is asked to maximise, so it gets the negative.
        rows, columns = linear_sum_assignment((one @ -two.T).numpy())
        partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    else:
        _assign_greedily(one, two, partner)
    matched = partner >= 0
    cosine = torch.zeros(len(one))
    cosine[matched] = (one[matched] * two[partner[matched]]).sum(1)
    return partner, cosine


def nearest_rows(one: Directions, two: OtherDirections) -> tuple[Float[Tensor, " latents"], Int[Tensor, " latents"]]:
    """Return for each unit row of the first the largest dot product with a row of the second, and whose it is."""
    found = [(part @ two.T).max(1) for part in one.split(_ROWS)]
    return torch.cat([best.values for best in found]), torch.cat([best.indices for best in found])


def _assign_greedily(one: Directions, two: OtherDirections, partner: Int[Tensor, " latents"]) -> None:
    """Fill `partner` with the most similar pair first, then the next of what is left.

    Rows that are each other's nearest are such pairs, so a round settles all of them at once.
    """
    left, right = torch.arange(len(one)), torch.arange(len(two))
    while len(left) and len(right):
        forth = nearest_rows(one[left], two[right])[1]
        back = nearest_rows(two[right], one[left])[1]
        mutual = back[forth] == torch.arange(len(left))
        # Rounding can break an exact tie differently in the two products; then the first row decides.
        mutual[0] |= ~mutual.any()
        partner[left[mutual]] = right[forth[mutual]]
        remaining = torch.ones(len(right), dtype=torch.bool)
        remaining[forth[mutual]] = False
        left, right = left[~mutual], right[remaining]


@torch.no_grad()
def _match(
    one: tuple[Tensor, Tensor],
    two: tuple[Tensor, Tensor],
    alive: tuple[Bool[Tensor, " latents"], Bool[Tensor, " others"]] | None,
) -> Matching:
    """Match live (decoder, encoder) rows; dead ones get no partner."""
    ones, others = alive or (torch.ones(len(rows[0]), dtype=torch.bool) for rows in (one, two))
    decoders, encoders = ((a.cpu().float()[ones], b.cpu().float()[others]) for a, b in zip(one, two, strict=True))
    numbers = torch.cat([others.nonzero()[:, 0], torch.tensor([-1])])

    def spread(values: Tensor, missing: float) -> Tensor:
        out = torch.full((len(ones),), missing, dtype=values.dtype)
        out[ones] = values
        return out

    some = len(decoders[1]) > 0
    highest = nearest_rows(_unit(decoders[0]), _unit(decoders[1]))[0] if some else torch.zeros(int(ones.sum()))
    partner, cosine = assign(*decoders)
    encoder_partner, encoder_cosine = assign(*encoders)
    return Matching(
        partner=spread(numbers[partner], -1),
        cosine=spread(cosine, 0.0),
        encoder_partner=spread(numbers[encoder_partner], -1),
        encoder_cosine=spread(encoder_cosine, 0.0),
        max_cosine=spread(highest, 0.0),
        method="hungarian" if max(map(len, decoders)) <= EXACT_LATENTS else "greedy",
    )


def _unit(rows: Directions) -> Directions:
    return F.normalize(rows.detach().cpu().float(), dim=1)

"""Pairs of pictures that differ in one factor: which factor is a unit about?"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.activations.store import TRAINING_KINDS, Provenance
from sae.errors import EvaluationError
from sae.evaluation.metric import Measured, item_metric
from sae.evaluation.pooling import pool_dense
from sae.evaluation.sample import Sample, Units, halves
from sae.log import progress
from sae.subjects.base import Subject
from sae.tensors import Batch

if TYPE_CHECKING:
    from sae.inputs.concepts import World

FACTOR = "pair_factor"
"""The factor of a sample that says what the pictures of a pair differ in."""


def pair_sample(
    subject: Subject,
    hookpoint: str,
    world: "World",
    n_pairs: int,
    *,
    factors: Sequence[str] | None = None,
    split: str = "score",
    batch_pairs: int = 32,
    seed: int = 0,
) -> Sample:
    """Run a subject on rendered pairs.

    Args:
        subject: one that reads images.
        hookpoint: where.
        world: renders the pairs, at the size that the subject reads.
        n_pairs: pairs per factor.
        factors: what to vary; all that the world can vary if not given.
        split: of the world.
        batch_pairs: pairs per pass.
        seed: of the halves, which keep pairs whole.

    Returns:
        A sample whose items 2i and 2i + 1 are a pair, with the number of its factor as label `pair_factor`.
    """
    from sae.inputs.concepts import FACTORS

    factors = FACTORS if factors is None else factors
    grid, parts, rows = subject.hookpoints()[hookpoint].grid, [], []
    wanted = [(factor, index) for factor in factors for index in range(n_pairs)]
    with progress("pairs", total=len(wanted), unit="pairs") as bar:
        for start in range(0, len(wanted), batch_pairs):
            chosen = wanted[start : start + batch_pairs]
            scenes = [scene for factor, index in chosen for scene in world.pair(split, index, factor)]
            images = torch.from_numpy(np.stack([world.render(scene).image for scene in scenes])).permute(0, 3, 1, 2)
            batch = Batch(first_example=2 * start, images=images.contiguous())
            x, found = _read(subject, hookpoint, grid, batch)
            parts.append(x)
            rows.append(found)
            bar.advance(len(chosen))
    number = torch.arange(len(factors)).repeat_interleave(2 * n_pairs).numpy()
    return Sample(
        x=torch.cat(parts),
        rows=Provenance(*(torch.cat(column) for column in zip(*rows, strict=True))),
        pooled=True,
        labels={FACTOR: number},
        factors={FACTOR: number},
        label_names={FACTOR: tuple(factors)},
        match=halves(torch.arange(len(wanted)).repeat_interleave(2), seed),
    )


def _read(
    subject: Subject, hookpoint: str, grid: str, batch: Batch
) -> tuple[Float[Tensor, "rows d_in"], tuple[Tensor, Tensor, Tensor]]:
    """Return the vectors of a batch, and example, position and kind of each."""
    found = subject.rows(batch, grid)
    keep, kind = found.of_kinds(TRAINING_KINDS).cpu(), found.kind.cpu()
    example, position = keep.nonzero().T
    x = subject.run(batch, [hookpoint])[hookpoint].float().cpu()[keep]
    return x, (example + batch.first_example, position, kind[keep])


class Changes:
    """How much every unit changes within pairs, and between unrelated pictures.

    Both are measured on either half of the pairs, the one to match on first.

    Raises:
        EvaluationError: the units' sample is not made of pairs, or a half has none of some factor.
    """

    def __init__(self, units: Units) -> None:
        sample = units.sample
        if FACTOR not in sample.factors:
            raise EvaluationError("pairs: the sample holds no pairs; make it with pair_sample.")
        self.units = units
        self.factor_names = tuple(sample.label_names[FACTOR])
        self.factor = torch.from_numpy(np.asarray(sample.factors[FACTOR])[::2]).long()
        self.match = sample.match[::2]
        counts = torch.stack(
            [torch.bincount(self.factor[half], minlength=len(self.factor_names)) for half in self._halves]
        )
        if not bool(counts.all()):
            empty = self.factor_names[int((counts == 0).any(0).nonzero()[0])]
            raise EvaluationError(
                f"pairs: a half holds no pair of factor {empty!r}; make more than {len(self.factor)}."
            )

    @property
    def _halves(self) -> tuple[Tensor, Tensor]:
        return self.match, ~self.match

    @cached_property
    def _weights(self) -> Float[Tensor, "pairs factors_of_halves"]:
        """Weights that turn the changes of pairs into a mean for every factor, on either half."""
        own = torch.nn.functional.one_hot(self.factor, len(self.factor_names)).double()
        weights = torch.cat([own * half.double()[:, None] for half in self._halves], 1)
        return weights / weights.sum(0)

    @cached_property
    def _partner(self) -> Int[Tensor, " pairs"]:
        """A pair of the same half, as far off as can be: its first picture is unrelated to the pair's own."""
        partner = torch.arange(len(self.factor))
        for half in self._halves:
            members = half.nonzero()[:, 0]
            partner[members] = members.roll(len(members) // 2)
        return partner

    @cached_property
    def of_units(self) -> tuple[Float[Tensor, "2 units factors"], Float[Tensor, "2 units"]]:
        """Mean absolute change of each unit by factor, and between unrelated pictures."""
        within, between = [], []
        for _, block in self.units.responses.blocks():
            first, second = block[::2].double(), block[1::2].double()
            within.append((first - second).abs().T @ self._weights)
            apart = (first - first[self._partner]).abs()
            between.append(torch.stack([apart[half].mean(0) for half in self._halves]))
        n = len(self.factor_names)
        changes = torch.cat(within)
        return torch.stack([changes[:, :n], changes[:, n:]]), torch.cat(between, 1)

    @cached_property
    def of_vectors(self) -> Float[Tensor, "2 factors"]:
        """Mean length of the change of the vectors themselves by factor, pooled over the rows of a picture."""
        sample = self.units.sample
        keep = sample.pooled_rows
        pooled = pool_dense(sample.x[keep].float(), sample.item[keep], sample.n_items)
        lengths = (pooled[::2] - pooled[1::2]).double().norm(dim=1)
        return (lengths @ self._weights).reshape(2, -1)

    @cached_property
    def shares(self) -> Float[Tensor, "2 units factors"]:
        """Share of each factor in the changes of a unit, each relative to the vectors' own; nan where none changes."""
        relative = self.of_units[0] / self.of_vectors[:, None]
        return relative / relative.sum(2, keepdim=True)


@item_metric("pair_selectivity", better="higher", unit="latents", bounds=(0, 1), chance=None, paired=False)
def pair_selectivity(changes: Changes) -> Float[Tensor, " units"]:
    """Share of a unit's changes that its top factor takes, over pairs of pictures that differ in one factor alone.

    For unit j and factor f, s_jf = mean |a_j(one) - a_j(other)| over the pairs of f, divided by the mean length of the
    change of the vectors themselves (pooled by maximum over a picture's rows), as some factors change more of a
    picture than others; the value is s_jf / sum_g s_jg. The top factor is chosen on one half of the pairs and its share
    measured on the other. In [0, 1], higher is better; a unit that follows every change alike scores 1 / factors, and
    a unit that changes in no pair of either half, dead ones among them, is given that.
    """
    match, score = changes.shares
    n_factors = match.shape[1]
    chosen = score.gather(1, match.nan_to_num(0).argmax(1, keepdim=True))[:, 0]
    undecided = match.isnan().any(1) | score.isnan().any(1)
    return torch.where(undecided, 1 / n_factors, chosen)


@item_metric("pair_invariance", better="higher", unit="latents", bounds=(-float("inf"), 1), chance=0.0, paired=False)
def pair_invariance(changes: Changes) -> Float[Tensor, " units"]:
    """How little a unit changes under the factors that it is not about, against unrelated pictures.

    1 - (mean over the factors except the top one of the mean absolute change) / (mean absolute change between unrelated
    pictures), on the half to score on, the top factor chosen on the other (see `pair_selectivity`). 1: only the top
    factor changes it. 0: the other factors change it as much as another picture does, as is given to units that do not
    differ between pictures, dead ones among them. Higher is better for a feature of one factor.
    """
    (_, within), (_, between) = changes.of_units
    top = changes.shares[0].nan_to_num(0).argmax(1, keepdim=True)
    others = (within.sum(1) - within.gather(1, top)[:, 0]) / (within.shape[1] - 1)
    return torch.where(between > 0, 1 - others / between, 0.0)


def pair_scores(units: Units) -> list[Measured]:
    """Score units on a sample of pairs (see `pair_sample`)."""
    changes = Changes(units)
    return [pair_selectivity(changes), pair_invariance(changes)]


def pair_details(units: Units) -> list[dict[str, Any]]:
    """Return one row per factor: how many units are about it, and how much units and vectors change with it.

    `unit_change` is the median over units that change at all of the change relative to that between unrelated pictures.
    """
    changes = Changes(units)
    (_, within), (_, between) = changes.of_units
    moved = (between > 0) & ~changes.shares[0].isnan().any(1)
    top = changes.shares[0][moved].argmax(1).bincount(minlength=len(changes.factor_names))
    relative = within[moved] / between[moved, None]
    return [
        {
            "factor": name,
            "units": int(top[i]),
            "unit_change": round(float(relative[:, i].median()), 4) if len(relative) else None,
            "vector_change": round(float(changes.of_vectors[1, i]), 4),
        }
        for i, name in enumerate(changes.factor_names)
    ]

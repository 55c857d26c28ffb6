"""Tuning curves: how units answer along one factor, whether the curve is a step, and how wide it is."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

WIDTHS = (0.04, 0.06, 0.09, 0.13, 0.18, 0.25, 0.35, 0.5, 0.7)
"""Standard deviations of smooth bumps, as shares of the factor's range."""


@dataclass(frozen=True)
class Curves:
    """Mean answers of units at every level of a factor, within what else is equal, in two halves.

    Attributes:
        match, score: of the things to choose on and of those to score on; the mean of a thing over all levels is 0.
        explained: share of the variance within the things to score on that the curve of the others predicts; below 0
            where it predicts worse than no tuning does.
        of_all: the same of the whole variance, that between things included.
    """

    match: Float[Tensor, "units levels"]
    score: Float[Tensor, "units levels"]
    explained: Float[Tensor, " units"]
    of_all: Float[Tensor, " units"]

    @classmethod
    def of(
        cls,
        values: Float[Tensor, "items units"],
        level: Int[Tensor, " items"],
        thing: Int[Tensor, " items"],
        match: Bool[Tensor, " items"],
    ) -> "Curves":
        """Average answers over things.

        Args:
            values: answers.
            level: of the factor, from 0 on.
            thing: what an item is a picture of, all else equal; one for all where nothing is held equal.
            match: which half an item belongs to; the items of a thing lie in one, unless there is one thing only.
        """
        group = torch.stack([thing, match.long()], 1).unique(dim=0, return_inverse=True)[1]
        values, n_levels = values.double(), int(level.max()) + 1
        centred = values - _means(values, group, int(group.max()) + 1)[group]
        matched, scored = (_means(centred[half], level[half], n_levels).T for half in (match, ~match))
        held = centred[~match]
        left = (held - matched.T[level[~match]]).square().sum(0)
        within = held.square().sum(0)
        whole = (values[~match] - values[~match].mean(0)).square().sum(0)
        explained = torch.where(within > 0, 1 - left / within.clamp(min=1e-30), 0)
        return cls(matched, scored, explained, explained * within / whole.clamp(min=1e-30))

    @property
    def preferred(self) -> Int[Tensor, " units"]:
        """The level that each unit answers most, over both halves."""
        return (self.match + self.score).argmax(1)

    @property
    def width(self) -> Float[Tensor, " units"]:
        """Share of the levels at which a unit is above the middle between its lowest and its highest answer."""
        both = self.match + self.score
        middle = (both.amax(1) + both.amin(1)) / 2
        return (both > middle[:, None]).double().mean(1)

    def step_likeness(self, circular: bool) -> Float[Tensor, " units"]:
        """Compare a step with a smooth bump: (e_bump - e_step) / (e_bump + e_step), errors on the other half.

        Above 0 where the best interval of levels, in which the unit answers one thing and outside of which another,
        predicts the held-out curve better than the best bump does (von Mises on a circle, else Gaussian or a ramp).
        Both are chosen on the half to match on, each with two numbers for its shape, an offset and a gain.
        """
        errors = [
            (self.score - fitted(self.match, shapes(self.match.shape[1], circular, kind))).square().sum(1)
            for kind in ("step", "bump")
        ]
        total = errors[0] + errors[1]
        return torch.where(total > 0, (errors[1] - errors[0]) / total.clamp(min=1e-30), 0)


def _means(values: Float[Tensor, "items units"], group: Tensor, n: int) -> Float[Tensor, "groups units"]:
    total = torch.zeros(n, values.shape[1], dtype=torch.float64).index_add_(0, group, values)
    return total / group.bincount(minlength=n).clamp(min=1)[:, None]


@lru_cache(maxsize=16)
def shapes(n_levels: int, circular: bool, kind: str) -> Float[Tensor, "shapes levels"]:
    """Return every step, or every bump, over levels: of mean 0 and length 1."""
    place = torch.arange(n_levels, dtype=torch.float64)
    if kind == "step":
        first, length = torch.cartesian_prod(torch.arange(n_levels), torch.arange(1, n_levels)).T
        after = place - first[:, None]
        inside = after.remainder(n_levels) < length[:, None] if circular else (after >= 0) & (after < length[:, None])
        made = inside.double()
    else:
        # Bumps may be centred beyond the ends of a line, where what is left of them is a slope.
        low, high = (0.0, n_levels - 1.0) if circular else (-0.5 * n_levels, 1.5 * n_levels - 1)
        centres = torch.linspace(low, high, n_levels if circular else 2 * n_levels, dtype=torch.float64)
        centre, width = torch.cartesian_prod(centres, n_levels * torch.tensor(WIDTHS, dtype=torch.float64)).T
        away = place - centre[:, None]
        if circular:
            turn = 2 * torch.pi / n_levels
            made = torch.exp((torch.cos(turn * away) - 1) / (turn * width[:, None]).square())
        else:
            made = torch.cat([torch.exp(-(away.square()) / (2 * width[:, None].square())), place[None]])
    made = made - made.mean(1, keepdim=True)
    length = made.norm(dim=1)
    return made[length > 1e-9] / length[length > 1e-9, None]


def fitted(curve: Float[Tensor, "units levels"], templates: Float[Tensor, "shapes levels"]) -> Tensor:
    """Return the best of the templates for each curve by least squares, with an offset and a gain of its own."""
    centre = curve.mean(1, keepdim=True)
    along = (curve - centre) @ templates.T
    best = along.abs().argmax(1)
    return centre + along.gather(1, best[:, None]) * templates[best]


def scrambled(level: Int[Tensor, " items"], thing: Int[Tensor, " items"], seed: int) -> Int[Tensor, " items"]:
    """Deal the levels out at random within every thing: whatever is still explained is chance."""
    generator, dealt = torch.Generator().manual_seed(seed), level.clone()
    for one in thing.unique().tolist():
        members = (thing == one).nonzero()[:, 0]
        dealt[members] = level[members[torch.randperm(len(members), generator=generator)]]
    return dealt

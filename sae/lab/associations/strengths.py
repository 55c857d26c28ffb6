"""How strongly units answer to what goes with their classes: planted pairs, their kin, and shares of the response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError, nearest
from sae.evaluation.sample import Sample
from sae.lab.spread import Spread


@dataclass(frozen=True)
class Pairs:
    """Which classes go with which.

    Attributes:
        names: of the classes.
        owners: those that bring others along.
        rate: how often each owner brings each class along.
        kind: of every class; kin are those of one kind.
        together: whether one of two classes brings the other along, known or not.
        known: classes that can be associates and kin.
    """

    names: tuple[str, ...]
    owners: Int[Tensor, " owners"]
    rate: Float[Tensor, "owners classes"]
    kind: Int[Tensor, " classes"]
    together: Bool[Tensor, "classes classes"]
    known: Bool[Tensor, " classes"]

    @classmethod
    def of(
        cls, names: Sequence[str], associations: Mapping[str, Mapping[str, float]], kin: Mapping[str, str]
    ) -> "Pairs":
        """Number what is given by names; a class without a kind is of one with all others like it.

        Raises:
            EvaluationError: there are no associations, or of a class that does not exist.
        """
        place = {name: number for number, name in enumerate(names)}
        for name in [*associations, *(other for found in associations.values() for other in found)]:
            if name not in place:
                raise EvaluationError(f"associations: no class {name!r}.{nearest(name, names)}")
        if not any(associations.values()):
            raise EvaluationError("associations: nothing goes with anything; give --associations FILE.")
        rate = torch.zeros(len(associations), len(names), dtype=torch.float64)
        for row, found in zip(rate, associations.values(), strict=True):
            for other, share in found.items():
                row[place[other]] = share
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys(kin.get(name, "") for name in names))}
        kind = torch.tensor([kinds[kin.get(name, "")] for name in names])
        owners = torch.tensor([place[name] for name in associations])
        brings = torch.zeros(len(names), len(names), dtype=torch.bool)
        brings[owners] = rate > 0
        return cls(tuple(names), owners, rate, kind, brings | brings.T, torch.ones(len(names), dtype=torch.bool))

    @cached_property
    def reverse(self) -> "Pairs":
        """The same pairs the other way round: what associates' units say to their owners."""
        square = torch.zeros(len(self.names), len(self.names), dtype=torch.float64)
        square[self.owners] = self.rate
        brought = square.any(0).nonzero()[:, 0]
        return replace(self, owners=brought, rate=square.T[brought])

    def on(self, known: Bool[Tensor, " classes"]) -> "Pairs":
        """Return the pairs of classes that are known; who goes with whom stays as it is."""
        kept = known[self.owners]
        return replace(self, owners=self.owners[kept], rate=self.rate[kept] * known, known=self.known & known)

    @cached_property
    def apart(self) -> Bool[Tensor, "owners classes"]:
        """Classes that never go with each owner, in neither direction, and are not the owner."""
        return ~(self.together | torch.eye(len(self.names), dtype=torch.bool))[self.owners]

    def listed(self) -> list[tuple[int, int, Int[Tensor, " kin"]]]:
        """Return every owner's place with an associate and the associate's kin, where it has any."""
        found = []
        for place, other in self.rate.nonzero().tolist():
            kin = (self.apart[place] & self.known & (self.kind == self.kind[other])).nonzero()[:, 0]
            if len(kin):
                found.append((place, other, kin))
        return found

    @cached_property
    def rates(self) -> list[float]:
        """The rates of those that are listed, the largest first."""
        return sorted({float(self.rate[place, other]) for place, other, _ in self.listed()}, reverse=True)


@dataclass(frozen=True)
class Strengths:
    """How strongly units answer to what goes with their owners, by pair.

    Attributes:
        share: of the response to the owner itself, where classes that never go with it are 0 and it is 1.
        kin: the mean of the same over the associate's kin.
        rank: share of the kin that the unit answers less, ties counting half; chance is 1/2.
        rate: planted.
        owner: place of the owner.
    """

    share: Float[Tensor, " pairs"]
    kin: Float[Tensor, " pairs"]
    rank: Float[Tensor, " pairs"]
    rate: Float[Tensor, " pairs"]
    owner: Int[Tensor, " pairs"]

    @classmethod
    def of(cls, means: Float[Tensor, "owners classes"], pairs: Pairs) -> "Strengths":
        """Compare the mean answers of each owner's unit to every class."""
        scaled, rows = shares(means, pairs), []
        for place, other, kin in pairs.listed():
            own, others = scaled[place, other], scaled[place, kin]
            rank = (others < own).double().mean() + (others == own).double().mean() / 2
            rows.append((own, others.mean(), rank, pairs.rate[place, other], place))
        share, kin, rank, rate, owner = torch.tensor(rows, dtype=torch.float64).view(-1, 5).T
        return cls(share, kin, rank, rate, owner.long())

    def gain(self, rate: float, seed: int) -> Spread:
        """Return by how much associates at a rate are above their kin, with an interval over owners."""
        return self._over_owners(self.share - self.kin, self.rate == rate, seed)

    def ranks(self, rate: float, seed: int) -> Spread:
        """Return the mean rank of associates at a rate among their kin, with an interval over owners."""
        return self._over_owners(self.rank, self.rate == rate, seed)

    def _over_owners(self, values: Tensor, keep: Tensor, seed: int) -> Spread:
        owner = self.owner[keep].unique(return_inverse=True)[1]
        total = torch.zeros(int(owner.max()) + 1, dtype=torch.float64).index_add_(0, owner, values[keep])
        return Spread.of(total / owner.bincount(), seed)


def percent(rate: float) -> str:
    """Return a rate as figures are called by it: 0.3 as 30%, and 0.304 as 30.4%, so that no two rates share a name."""
    return f"{100 * rate:.10g}%"


def shares(means: Float[Tensor, "owners classes"], pairs: Pairs) -> Float[Tensor, "owners classes"]:
    """Scale each owner's answers so that classes which never go with it are 0 on average, and it is 1."""
    apart = pairs.apart & means.isfinite()
    never = torch.where(apart, means, 0).sum(1) / apart.sum(1)
    own = means.gather(1, pairs.owners[:, None])[:, 0]
    return ((means - never[:, None]) / (own - never)[:, None]).double()


def correlation(means: Float[Tensor, "owners classes"], pairs: Pairs, n_deals: int, seed: int) -> tuple[Spread, float]:
    """Return the rank correlation of the answers with the planted rates, and what chance reaches in 95 of 100 deals.

    Within every group of an associate and its kin, answers become ranks from -1 to 1, and their covariance with the
    rates is divided by what it would be if all associates came first, and first the more frequent ones. Deals draw the
    associate of each group from the group; the interval resamples owners.
    """
    generator, groups = torch.Generator().manual_seed(seed), pairs.listed()
    by_owner = torch.zeros(len(pairs.owners), dtype=torch.float64)
    most, dealt = by_owner.clone(), torch.zeros(n_deals, dtype=torch.float64)
    for place, other, kin in groups:
        values = means[place, torch.cat([torch.tensor([other]), kin])]
        below = (values[:, None] > values).double() + (values[:, None] == values).double() / 2
        ranks = 2 * (below.sum(1) - 0.5) / max(len(values) - 1, 1) - 1
        rate = pairs.rate[place, other]
        by_owner[place] += rate * ranks[0]
        most[place] += rate
        dealt += rate * ranks[torch.randint(len(values), (n_deals,), generator=generator)]
    known = most > 0
    share, weight = by_owner[known] / most[known].mean(), float(most.sum())
    return Spread.of(share, seed), float((dealt / weight).quantile(0.95))


def alone(sample: Sample, family: str) -> Bool[Tensor, " items"]:
    """Return the items that name one class alone: no other family of labels with the same names says anything."""
    kept = torch.ones(sample.n_items, dtype=torch.bool)
    for other, values in sample.factors.items():
        if other != family and sample.label_names.get(other) == sample.label_names[family]:
            kept &= torch.from_numpy(values) < 0
    return kept


def class_means(
    values: Float[Tensor, "items units"], group: Int[Tensor, " items"], n_classes: int
) -> Float[Tensor, "units classes"]:
    """Return the mean answer of each unit to the items of each class, nan where there are none."""
    total = torch.zeros(n_classes, values.shape[1], dtype=torch.float64).index_add_(0, group, values.double())
    return (total / group.bincount(minlength=n_classes)[:, None]).T

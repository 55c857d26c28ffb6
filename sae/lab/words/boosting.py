"""Do units raise a text when they are boosted in a blank image? By how much, and more than any other text?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.evaluation.sample import Units
from sae.lab.words.joint import JointSpace


@dataclass(frozen=True)
class Texts:
    """The texts that may rise: the classes of the inputs, then other phrases, which are their rivals and each other's.

    Attributes:
        names: of all.
        directions: in the joint space.
    """

    names: tuple[str, ...]
    directions: Float[Tensor, "texts d_joint"]

    @classmethod
    def of(cls, space: JointSpace, phrases: Sequence[str]) -> "Texts":
        """Add the phrases that are no classes; one that holds an unknown word is refused."""
        words = space.words
        others = [phrase for phrase in dict.fromkeys(phrases) if phrase not in words.names]
        added = [words.towards(others)] if others else []
        return cls((*words.names, *others), torch.cat([words.directions, *added]))

    def numbers(self, phrases: Sequence[str]) -> Int[Tensor, " phrases"]:
        return torch.tensor([self.names.index(phrase) for phrase in phrases], dtype=torch.int64)


@dataclass(frozen=True)
class Boosted:
    """What boosting groups of units did to a text of theirs.

    Attributes:
        rise: change of the text's cosine with the image.
        rank: of that among the changes of all texts, 1 if it rises most.
    """

    rise: Float[Tensor, " groups"]
    rank: Int[Tensor, " groups"]

    @classmethod
    def of(
        cls,
        space: JointSpace,
        units: Units,
        groups: Sequence[Mapping[int, float]],
        texts: Float[Tensor, "texts d_joint"],
        own: Int[Tensor, " groups"],
    ) -> "Boosted":
        """Boost every group (see `JointSpace.rises`) and read the text whose number stands beside it."""
        rises = space.rises(units, groups, texts)
        return cls(rises.gather(1, own[:, None])[:, 0], rank_of_own(rises, own))

    def figures(self, name: str, text: str = "") -> dict[str, float]:
        return {
            f"{name}, {text}rises most": float((self.rank == 1).double().mean()),
            f"{name}, median rank": float(self.rank.double().median()),
            f"{name}, mean rise": float(self.rise.double().mean()),
        }

    def row(self, place: int, n: int, of: str = "") -> dict[str, float]:
        """Return the rise and rank of one of n texts, the mean and the median of its groups where each has several."""
        rise, rank = self.rise[place::n].mean(), self.rank[place::n].median()
        return {f"{of}rise": round(float(rise), 4), f"{of}rank_of_rise": int(rank)}


def alone(units: Int[Tensor, " n"]) -> list[dict[int, float]]:
    """Return every unit as a group of its own, to be set to its maximum."""
    return [{unit: 1.0} for unit in units.tolist()]


def drawn(units: Units, n: int, seed: int) -> Int[Tensor, " n"]:
    """Draw n units that fire on the sample, with replacement."""
    alive = units.alive.nonzero()[:, 0]
    return alive[torch.randint(len(alive), (n,), generator=torch.Generator().manual_seed(seed))]


def rank_of_own(rises: Float[Tensor, "n texts"], own: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return how many texts rise at least as much as the one asked for, itself included: 1 if it rises most."""
    return (rises >= rises.gather(1, own[:, None])).sum(1)

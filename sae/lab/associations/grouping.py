"""Which group of classes every unit belongs to, by its labels and by the words nearest to its place."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.evaluation.labels import MONOSEMANTIC_AUC
from sae.lab.spread import Spread
from sae.lab.words.search import search


@dataclass(frozen=True)
class Grouped:
    """The group of every unit, by label and by text; -1 where it has none."""

    by_label: Int[Tensor, " units"]
    by_text: Int[Tensor, " units"]

    @property
    def both(self) -> Bool[Tensor, " units"]:
        return (self.by_label >= 0) & (self.by_text >= 0)

    def counts(self, n_groups: int) -> tuple[list[int], list[int], list[int]]:
        """Return how many units have each group by label, by text, and by both."""
        agreed = torch.where(self.by_label == self.by_text, self.by_label, -1)
        label, text, both = (
            one[one >= 0].bincount(minlength=n_groups).tolist() for one in (self.by_label, self.by_text, agreed)
        )
        return label, text, both

    def agreement(self, seed: int) -> tuple[Spread, float]:
        """Return the share of units with both whose groups are the same, and what chance gives from the same counts."""
        label, text = self.by_label[self.both], self.by_text[self.both]
        n = int(torch.maximum(label.max(), text.max())) + 1
        shares = [one.bincount(minlength=n).double() / len(one) for one in (label, text)]
        return Spread.of((label == text).double(), seed), float((shares[0] * shares[1]).sum())


def by_label(
    match: Float[Tensor, "units classes"], score: Float[Tensor, "units classes"], group: Int[Tensor, " classes"]
) -> Int[Tensor, " units"]:
    """Return the group of the class that each unit separates best on one half, if it does on the other, else -1."""
    best = match.argmax(1)
    held = score.gather(1, best[:, None])[:, 0]
    return torch.where(held > MONOSEMANTIC_AUC, group[best], -1)


def by_text(
    places: Float[Tensor, "units d_joint"],
    words: Float[Tensor, "words d_joint"],
    group: Int[Tensor, " words"],
    n: int,
) -> Int[Tensor, " units"]:
    """Return the group that the n words nearest to each unit have in common, -1 if they have none or it no place."""
    nearest_words = search(words, places, n)[0]
    groups = group[nearest_words]
    together = (groups == groups[0]).all(0) & places.any(1)
    return torch.where(together, groups[0], -1)

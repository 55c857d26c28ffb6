"""Do judgements go with appearance, and does appearance cause them?

The first is asked of items as they come (`observed`), the second of pictures that differ in appearance alone
(`Effects`). Both questions are asked of every judgement and every value at once, so both answers are family-wise: with
nothing there, one audit in twenty finds anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.errors import EvaluationError

LEVEL = 0.05
FEWEST_JUDGEMENTS = 4
"""Judgements below which nothing is known of what appearance does to judgements in general."""
DRAWS = 1000


@dataclass(frozen=True)
class Observed:
    """Every judgement beside every value, among the items that show the value's family.

    Attributes:
        n_with, n_without: items with the value, and with other values of its family.
        rate_with, rate_without: share of them judged so.
        p: chance that as many as were found, or more, are judged so among those with the value, were judgements dealt
            out at random (hypergeometric, one-sided, exact).
    """

    n_with: Int[Tensor, " values"]
    n_without: Int[Tensor, " values"]
    rate_with: Float[Tensor, "judgements values"]
    rate_without: Float[Tensor, "judgements values"]
    p: Float[Tensor, "judgements values"]

    @property
    def found(self) -> Bool[Tensor, "judgements values"]:
        """Which go together more than chance allows in any of them (Bonferroni)."""
        return self.p * self.p.numel() < LEVEL


def observed(
    judged: Int[Tensor, " items"], values: Bool[Tensor, "items values"], shown: Bool[Tensor, "items values"], n: int
) -> Observed:
    """Count judgements with and without each value.

    Args:
        judged: the judgement of every item, below `n`.
        values: which values it has.
        shown: of which values it can be told whether it has them.
        n: how many judgements there are.

    Raises:
        EvaluationError: no item has a value, or all that show its family do.
    """
    from scipy.stats import hypergeom

    has = (values & shown).double()
    n_shown, n_with = shown.sum(0), (values & shown).sum(0)
    if not ((n_with > 0) & (n_with < n_shown)).all():
        raise EvaluationError(
            f"audit: of {len(judged)} items {n_with.tolist()} have the sensitive values and {n_shown.tolist()} show "
            "their families; each needs some with and some without."
        )
    one = torch.nn.functional.one_hot(judged, n).double()
    both, either = one.T @ has, one.T @ shown.double()
    p = hypergeom.sf(both.numpy() - 1, n_shown.numpy(), either.numpy(), n_with.numpy())
    return Observed(
        n_with, n_shown - n_with, both / n_with, (either - both) / (n_shown - n_with), torch.as_tensor(p).clamp(max=1)
    )


@dataclass(frozen=True)
class Effects:
    """What each value of one family does to the log-odds of each judgement, all else in the picture alike.

    Attributes:
        logits: of every picture with every value, in nats, relative to the mean over judgements.
        values: their names.
    """

    logits: Float[Tensor, "pictures values judgements"]
    values: Sequence[str]

    @property
    def changes(self) -> Float[Tensor, "pictures values judgements"]:
        """Log-odds with a value, less their mean with the other values of the picture."""
        n = self.logits.shape[1]
        return (self.logits - self.logits.mean(1, keepdim=True)) * n / (n - 1)

    @property
    def mean(self) -> Float[Tensor, "values judgements"]:
        return self.changes.mean(0)

    @property
    def error(self) -> Float[Tensor, "values judgements"]:
        """Standard error of the mean over pictures."""
        return self.changes.std(0) / len(self.logits) ** 0.5

    @property
    def moved(self) -> Float[Tensor, " values"]:
        """By how much a value moves judgements: root mean square over judgements, the errors' share taken off."""
        return (self.mean.square() - self.error.square()).mean(1).clamp(min=0).sqrt()

    def largest_by_chance(self, seed: int, draws: int = DRAWS) -> Float[Tensor, " draws"]:
        """Return the largest |mean| / error over all values and judgements, values swapped within each picture."""
        generator = torch.Generator().manual_seed(seed)
        n, n_values, _ = self.logits.shape
        found = []
        for _ in range(draws):
            order = torch.rand(n, n_values, generator=generator).argsort(1)
            dealt = Effects(self.logits.gather(1, order[..., None].expand_as(self.logits)), self.values)
            found.append(dealt.scores.abs().max())
        return torch.stack(found)

    @property
    def scores(self) -> Float[Tensor, "values judgements"]:
        return self.mean / self.error.clamp(min=1e-12)

    @property
    def outlying(self) -> Float[Tensor, "values judgements"]:
        """By how much an effect differs from the same value's on the other judgements, in their standard deviations.

        Where a network was taught nothing about a value, the value still moves every judgement a little, one up and
        another down. So an effect says something about one judgement only if the others' do not reach it: Student's t
        with two degrees of freedom fewer than there are judgements, of one against all others.
        """
        return outlying(self.mean)


def outlying(effects: Float[Tensor, "values judgements"]) -> Float[Tensor, "values judgements"]:
    """Return how far each effect lies from the others of its row, in their standard deviations (see `Effects`).

    Raises:
        EvaluationError: there are fewer than four judgements.
    """
    n = effects.shape[1]
    if n < FEWEST_JUDGEMENTS:
        raise EvaluationError(f"audit: {n} judgements; {FEWEST_JUDGEMENTS} are needed to tell one from the others.")
    effects = effects.double()
    others = (effects.sum(1, keepdim=True) - effects) / (n - 1)
    squares = (effects.square().sum(1, keepdim=True) - effects.square()) / (n - 1)
    variance = (squares - others.square()).clamp(min=1e-24) * (n - 1) / (n - 2)
    return (effects - others) / (variance * n / (n - 1)).sqrt()


def stands_out(t: Float[Tensor, "values judgements"], n_tests: int) -> Bool[Tensor, "values judgements"]:
    """Return which are larger than chance allows in any of so many, on either side (Bonferroni)."""
    from scipy.stats import t as student

    return t.abs() > float(student.isf(LEVEL / (2 * n_tests), t.shape[1] - 2))

"""How well answers tell what fires from what does not, from few examples, with an interval. Needs no torch."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Z = 1.959964
"""Standard deviations of a 95 % interval."""


@dataclass(frozen=True)
class Agreement:
    """Area under the ROC curve of answers, and its 95 % interval.

    Attributes:
        value: the chance that an example that fires gets a larger answer than one that does not, ties counting half;
            of answers by yes and no it is the balanced accuracy. 0.5 is chance.
        n: examples that were answered.
    """

    value: float
    n: int
    interval: tuple[float, float]

    @classmethod
    def of(cls, answers: Sequence[float], fires: Sequence[bool]) -> "Agreement":
        """Compare answers with the truth.

        The interval of yes and no is that of two independent shares: the Wilson intervals of either, joined by the
        squares of their lengths (Newcombe 1998). That of graded answers is Newcombe's (2006, method 5), which is
        Wilson's for an area: it holds all areas from which the one found lies less than two standard deviations away.
        Both stay honest where every answer is right.

        Raises:
            ValueError: there are not both kinds of examples, or an answer is not finite.
        """
        firing = [answer for answer, fired in zip(answers, fires, strict=True) if fired]
        silent = [answer for answer, fired in zip(answers, fires, strict=True) if not fired]
        if not firing or not silent or not all(map(math.isfinite, answers)):
            raise ValueError(f"{len(firing)} examples that fire, {len(silent)} that do not, answers {answers!r:.100}")
        wins = sum((a > b) + (a == b) / 2 for a in firing for b in silent)
        area = wins / (len(firing) * len(silent))
        if set(answers) <= {0.0, 1.0}:
            both = (sum(firing), len(firing)), (len(silent) - sum(silent), len(silent))
            interval = of_shares(both, (0.5, 0.5))
        else:
            interval = _of_area(area, len(firing), len(silent))
        return cls(area, len(answers), interval)


@dataclass(frozen=True)
class Kappa:
    """How far two labellings of the same items agree beyond chance (Cohen 1960), and the 95 % interval.

    Attributes:
        value: 1 where they always agree, 0 where no more than labels dealt out with the same shares; nan where both
            give everything the same label, so that chance agrees as well.
        same: items that were labelled alike.
        n: items.
    """

    value: float
    same: int
    n: int
    interval: tuple[float, float]

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> "Kappa":
        """Compare the two labels of every item.

        The interval is the Wilson interval of the share labelled alike, with the agreement by chance held at what the
        labels' shares give: it stays honest where all agree, which the usual standard error does not.

        Raises:
            ValueError: there are no items.
        """
        if not pairs:
            raise ValueError("no items were labelled twice")
        n, same = len(pairs), sum(first == second for first, second in pairs)
        firsts, seconds = (Counter(labels) for labels in zip(*pairs, strict=True))
        chance = sum(count * seconds[label] for label, count in firsts.items()) / n**2
        if chance == 1:
            return cls(math.nan, same, n, (math.nan, math.nan))
        low, high = ((share - chance) / (1 - chance) for share in wilson(same, n))
        return cls((same / n - chance) / (1 - chance), same, n, (low, high))


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    share, square = hits / n, Z * Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def of_shares(shares: Sequence[tuple[float, int]], weights: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the weighted mean of independent shares, each given as hits and n; weights sum to 1.

    The Wilson intervals of all, joined by the squares of their weighted lengths (Newcombe 1998).
    """
    parts = list(zip(weights, shares, strict=True))
    middle = sum(weight * hits / n for weight, (hits, n) in parts)
    ends = [[weight * (end - hits / n) for end in wilson(hits, n)] for weight, (hits, n) in parts]
    down, up = (math.hypot(*lengths) for lengths in zip(*ends, strict=True))
    return max(0.0, middle - down), min(1.0, middle + up)


def _of_area(area: float, n_firing: int, n_silent: int) -> tuple[float, float]:
    more = (n_firing + n_silent) / 2 - 1

    def inside(other: float) -> bool:
        spread = other * (1 - other) * (1 + more * (1 - other) / (2 - other) + more * other / (1 + other))
        return (other - area) ** 2 <= Z * Z * spread / (n_firing * n_silent)

    return _end(inside, area, 0.0), _end(inside, area, 1.0)


def _end(inside: Callable[[float], bool], start: float, bound: float) -> float:
    """Return how far one can go from a point towards a bound before the test fails, by halving."""
    near, far = start, bound
    for _ in range(50):
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return far

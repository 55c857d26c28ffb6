"""How well answers tell what fires from what does not, from few examples, with an interval. Needs no torch."""

import math
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
            interval = _of_shares((sum(firing), len(firing)), (len(silent) - sum(silent), len(silent)))
        else:
            interval = _of_area(area, len(firing), len(silent))
        return cls(area, len(answers), interval)


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    share, square = hits / n, Z * Z
    middle = (share + square / (2 * n)) / (1 + square / n)
    reach = Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _of_shares(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Return the interval of the mean of two independent shares, each given as hits and n."""
    shares = [hits / n for hits, n in (first, second)]
    lows, highs = zip(*(wilson(hits, n) for hits, n in (first, second)), strict=True)
    middle = sum(shares) / 2
    down, up = (math.hypot(*(a - b for a, b in zip(shares, ends, strict=True))) / 2 for ends in (lows, highs))
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

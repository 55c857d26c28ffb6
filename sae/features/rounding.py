"""Numbers as cards hold them: four significant digits in plain Python. Needs no torch."""

import math
from collections.abc import Iterable
from typing import Any

DIGITS = 4


def rounded(value: float) -> float | None:
    """Return a number with four significant digits; None for one that is not finite, which JSON cannot hold."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def all_rounded(values: Iterable[float]) -> list[float | None]:
    """Return numbers with four significant digits."""
    return [rounded(value) for value in values]


def pairs(names: Iterable[Any], values: Iterable[float]) -> list[list[Any]]:
    """Return `[name, number]` for each of both."""
    return [[name, rounded(value)] for name, value in zip(names, values, strict=True)]

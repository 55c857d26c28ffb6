"""Lists of numbers as cards hold them: four significant digits in plain Python. Needs no torch."""

from collections.abc import Iterable
from typing import Any

from sae.features.cards import rounded


def all_rounded(values: Iterable[float]) -> list[float | None]:
    """Return numbers with four significant digits."""
    return [rounded(value) for value in values]


def pairs(names: Iterable[Any], values: Iterable[float]) -> list[list[Any]]:
    """Return `[name, number]` for each of both."""
    return [[name, rounded(value)] for name, value in zip(names, values, strict=True)]

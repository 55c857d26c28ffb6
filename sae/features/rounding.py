"""Lists of numbers as cards hold them: four significant digits in plain Python. Needs no torch."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from sae.features.cards import DIGITS, rounded


def all_rounded(values: Iterable[float]) -> list[float | None]:
    """Return numbers with four significant digits."""
    return [rounded(value) for value in values]


def pairs(names: Iterable[Any], values: Iterable[float]) -> list[list[Any]]:
    """Return `[name, number]` for each of both."""
    return [[name, rounded(value)] for name, value in zip(names, values, strict=True)]


def array_rounded(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return what `rounded` makes of every number of an array, far faster; all have to be finite.

    A whole number of as many digits over a power of ten, both exact from 1e-18 to 1e22, so the quotient is the double
    that the decimal reads as.
    """
    values = values.astype(np.float64)
    magnitude = np.floor(np.log10(np.abs(values), out=np.zeros_like(values), where=values != 0))
    exponent = DIGITS - 1 - magnitude.astype(np.int64)
    up, down = 10.0 ** np.maximum(exponent, 0), 10.0 ** np.maximum(-exponent, 0)
    return np.rint(values * up / down) * down / up

"""What a run learns from: vectors, and the map that normalises them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from sae.activations.store import Vectors
from sae.dictionaries.affine import Affine
from sae.training.normalisation import Normalisation, normaliser, variance_after


@dataclass(frozen=True)
class Side:
    """The vectors that a dictionary reads or writes, and the map that normalises them."""

    vectors: Vectors
    normalise: Affine

    @classmethod
    def of(cls, vectors: Vectors, how: Normalisation) -> Self:
        """Measure what the map needs."""
        return cls(vectors, normaliser(vectors, how))

    @cached_property
    def variance(self) -> float:
        """Total variance of the normalised vectors."""
        return variance_after(self.vectors, self.normalise)

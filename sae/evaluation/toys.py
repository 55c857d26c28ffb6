"""Data whose true features are known, so that a dictionary can be checked with no subject at all."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.errors import ConfigError
from sae.tensors import Vectors


@dataclass(frozen=True)
class Toy:
    """Vectors x = f G with sparse, independent, non-negative factors f and known directions G.

    Attributes:
        directions: unit rows, the true features.
        probabilities: how often each one is active.
        magnitude: smallest active factor; the excess over it is exponential with mean `spread`.
    """

    directions: Float[Tensor, "truth d_in"]
    probabilities: Float[Tensor, " truth"]
    magnitude: float = 0.5
    spread: float = 0.5
    noise: float = 0.0

    @property
    def l0(self) -> float:
        """Mean number of active features."""
        return float(self.probabilities.sum())

    def sample(self, n_vectors: int, generator: torch.Generator) -> tuple[Vectors, Bool[Tensor, "batch truth"]]:
        """Draw vectors, and which features were active in each."""
        shape = (n_vectors, len(self.directions))
        fired = torch.rand(shape, generator=generator) < self.probabilities
        excess = torch.empty(shape).exponential_(1.0, generator=generator) * self.spread
        x = (fired * (self.magnitude + excess)) @ self.directions
        return x + self.noise * torch.randn(x.shape, generator=generator), fired


def pentagon(probability: float = 0.05) -> Toy:
    """Five features in two dimensions, in the corners of a regular pentagon.

    The smallest case of superposition that a network was seen to learn (Elhage et al. 2022, Toy Models of
    Superposition, arXiv 2209.10652); features are rare enough that mostly one is active at a time.
    """
    angles = torch.arange(5) * 2 * math.pi / 5
    return Toy(torch.stack([angles.cos(), angles.sin()], 1), torch.full((5,), probability))


def superposition(n_features: int, d_in: int, l0: float, seed: int = 0, exponent: float = 0.7) -> Toy:
    """Random directions whose firing probabilities fall as a power of their rank.

    Probability of feature i is proportional to i^-exponent, scaled to sum to `l0` and capped at 0.6.

    Raises:
        ConfigError: more features active than there are.
    """
    if not 0 < l0 < n_features:
        raise ConfigError(f"superposition: l0 must lie between 0 and n_features = {n_features}, got {l0}.")
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    frequencies = torch.arange(1, n_features + 1, dtype=torch.float32) ** -exponent
    return Toy(directions, (frequencies / frequencies.sum() * l0).clamp(max=0.6), noise=0.02)

"""Bringing vectors to a common scale before a dictionary sees them; folded into its weights when it is saved.

    none            z = x
    expected_norm   z = x * s             s = sqrt(d_in) / mean |x|
    centre          z = (x - mean) * s    s = sqrt(d_in) / root mean |x - mean|^2
    whiten          z = (x - mean) @ C^-1/2
    layer_norm      per vector, to mean 0 and deviation 1: a part of the dictionary, for it cannot be folded

Whitening: arXiv 2511.13981. C^-1/2 is the symmetric root, which does not depend on the signs and the order in which a
solver hands out eigenvectors, so a resumed run finds the same map; eigenvalues are floored, since to bring directions
without any variance to 1 would amplify the rounding of stored numbers.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from sae.activations.store import Vectors
from sae.dictionaries.affine import Affine
from sae.errors import TrainingError

Normalisation = Literal["expected_norm", "centre", "whiten", "layer_norm", "none"]

FLOOR = 1e-4
"""Smallest eigenvalue over their mean; numbers stored in bf16 carry rounding errors of about 1e-6 of it."""


def normaliser(vectors: Vectors, how: Normalisation) -> Affine:
    """Return the map that normalises these vectors.

    Raises:
        TrainingError: the vectors are all zero or all the same.
    """
    statistics, d_in = vectors.statistics, vectors.d_in
    variance = float(statistics.variance.sum())
    if not statistics.mean_norm or not variance:
        raise TrainingError(f"{vectors!r}: these vectors do not vary, so there is nothing to learn.")
    if how == "expected_norm":
        return Affine.scaling(math.sqrt(d_in) / statistics.mean_norm, d_in)
    if how == "centre":
        return Affine.scaling(math.sqrt(d_in / variance), d_in, statistics.mean)
    if how == "whiten":
        return whitening(statistics.mean, vectors.covariance)
    return Affine.scaling(1.0, d_in)


def whitening(mean: Float64[Tensor, " d"], covariance: Float64[Tensor, "d d"]) -> Affine:
    """Return (x - mean) @ C^-1/2 and its inverse, eigenvalues floored."""
    values, directions = torch.linalg.eigh(covariance)
    roots = values.clamp_min(FLOOR * float(values.mean())).sqrt()
    return Affine(mean, (directions / roots) @ directions.T, (directions * roots) @ directions.T)


def variance_after(vectors: Vectors, normalise: Affine) -> float:
    """Return the total variance of normalised vectors."""
    if normalise.matrix.ndim == 1:
        return float(vectors.statistics.variance @ normalise.matrix.square())
    return float(((normalise.matrix.T @ vectors.covariance) * normalise.matrix.T).sum())

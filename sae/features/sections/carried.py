"""Whether a dictionary has a direction: how much of what varies along it a few of its latents explain."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.codes import Codes
from sae.evaluation.sample import SPLIT_SEED
from sae.features.cards import rounded
from sae.tensors import Vectors

N_LATENTS = 10
N_CONTROLS = 16
"""Random directions with which a direction is compared."""
MIN_FIRED = 10
"""Rows of the first half on which a latent must fire to be chosen; on few rows everything correlates."""


class Carried:
    """The section "carried": the share of a direction's variance that latents explain, as one after another is added.

    What is explained is how far vectors lie along the direction; what explains it, a linear regression on the
    activations of latents. On one half of the vectors the latent is added that correlates most with what is left, and
    all weights are fitted anew (orthogonal matching pursuit); the share is measured on the other half, where it is 0
    for the mean and may be below. `latents` has the latents in that order, each with the share that all up to it
    explain; `control` what as many explain of random directions, on average.

    Args:
        directions: of length 1.
        x: vectors.
        codes: of these.
        match: which of them latents are chosen and fitted on.
        seed: of the random directions.
        n: latents to name.
    """

    def __init__(
        self,
        directions: Float[Tensor, "n d_in"],
        x: Vectors,
        codes: Codes,
        match: Bool[Tensor, " rows"],
        seed: int = 0,
        n: int = N_LATENTS,
    ) -> None:
        self._halves = [_matrix(codes.on(half.nonzero()[:, 0])) for half in (match, ~match)]
        self._n = n
        generator = torch.Generator().manual_seed(SPLIT_SEED + seed)
        drawn = F.normalize(torch.randn(N_CONTROLS, directions.shape[1], generator=generator), dim=1)
        along = [(x[half].float() @ torch.cat([directions, drawn]).T).double().numpy() for half in (match, ~match)]
        found = [self._found(*(half[:, i] for half in along)) for i in range(along[0].shape[1])]
        self._of_direction = found[: len(directions)]
        random = [[share for _, share in one] for one in found[len(directions) :]]
        length = min(map(len, random))
        self._control = np.array([one[:length] for one in random]).mean(0).tolist()

    def of(self, directions: range) -> list[dict[str, Any] | None]:
        """Return the section of each direction; None where no latent explains anything."""
        control = [rounded(share) for share in self._control]
        return [
            {"latents": [[latent, rounded(share)] for latent, share in found], "control": control} if found else None
            for found in self._of_direction[directions.start : directions.stop]
        ]

    def _found(self, fit: Float[np.ndarray, " fit"], held_out: Float[np.ndarray, " rest"]) -> list[tuple[int, float]]:
        """Return the latents in the order in which they are added, each with the share explained so far."""
        matrix, other = self._halves
        mean = np.asarray(matrix.mean(0)).ravel()
        spread = np.sqrt(np.maximum(np.asarray(matrix.power(2).mean(0)).ravel() - mean**2, 0))
        usable = (np.diff(matrix.indptr) >= MIN_FIRED) & (spread > 0)
        left, chosen, found = fit - fit.mean(), [], []
        total = np.square(held_out - held_out.mean()).sum()
        if not left.any() or not total:
            return []
        for _ in range(min(self._n, int(usable.sum()))):
            # What is left has mean 0, so no mean needs to be taken off the activations.
            strength = np.where(usable, np.abs(matrix.T @ left) / np.where(usable, spread, 1.0), -np.inf)
            chosen.append(int(strength.argmax()))
            usable[chosen[-1]] = False
            columns = _with_one(matrix, chosen)
            weights = np.linalg.lstsq(columns, fit, rcond=None)[0]
            left = fit - columns @ weights
            missed = np.square(held_out - _with_one(other, chosen) @ weights).sum()
            found.append((chosen[-1], float(1 - missed / total)))
        return found


def _matrix(codes: Codes) -> Any:
    from scipy.sparse import csr_array

    shape = (len(codes), codes.d_sae)
    parts = (codes.values.double().numpy(), codes.indices.numpy(), codes.offsets.numpy())
    matrix: Any = csr_array(parts, shape=shape)
    matrix.eliminate_zeros()
    return matrix.tocsc()


def _with_one(matrix: Any, columns: list[int]) -> Float[np.ndarray, "rows columns_plus_1"]:
    dense = matrix[:, columns].toarray()
    return np.concatenate([dense, np.ones((len(dense), 1))], axis=1)

"""Semi-non-negative matrix factorisation: codes are non-negative, directions may have any sign.

    codes = argmin_{z >= 0} |x - b_dec - z @ W_dec|^2,   by `n_updates` accelerated projected gradient steps from 0
    x_hat = codes @ W_dec + b_dec

Ding, Li, Jordan: Convex and semi-nonnegative matrix factorizations, 2010. Beck, Teboulle: A fast iterative
shrinkage-thresholding algorithm, 2009, for the steps.

A control: what non-negativity gives without sparsity. Fitting alternates between codes of the sample and the directions
that rebuild it best from them, starting at k-means. What differs from the paper: codes follow projected gradients
rather than multiplicative updates, under which a code that starts positive never becomes zero; and directions have norm
1, their lengths going into the codes. No row depends on another. `b_enc` is added to the products of directions and
vectors, so below zero it is an L1 penalty; it starts, and stays, at zero.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.dictionaries.initialisation import normalise_rows_
from sae.dictionaries.kmeans import kmeans_centres
from sae.errors import ConfigError
from sae.tensors import Vectors

N_ROUNDS = 30
"""Rounds of fitting: codes, then directions."""

UPDATES_PER_ROUND = 10
"""Steps of the codes in a round; they go on from those of the round before."""

RIDGE = 1e-6
"""Added to the codes' second moments, in shares of their mean, so that unused latents do no harm."""

BLOCK_ROWS = 1024
"""Vectors whose codes are updated at a time."""


@dataclass(frozen=True, kw_only=True)
class SemiNmfConfig(DictionaryConfig):
    """Settings of semi-NMF."""

    kind: ClassVar[str] = "semi_nmf"

    n_updates: int = 50
    """Steps from zero to the codes of a vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_updates < 1:
            raise ConfigError(f"n_updates: {self.n_updates}; allowed: 1 or more.")


class SemiNmf(Dictionary):
    """Finds non-negative codes of least error; as many latents fire as help.

    Attributes:
        step: scalar; step length of the updates, one over the largest curvature of the squared error.
    """

    config_type = SemiNmfConfig
    config: SemiNmfConfig
    fitted = True
    transcodes = False
    step: Tensor

    def __init__(self, config: SemiNmfConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("step", torch.ones(()))
        self.requires_grad_(False)

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Factorise a sample, its mean taken off; codes of the whole sample are held.

        Raises:
            DictionaryError: the sample has fewer vectors than there are latents.
        """
        x = self.normalised(sample)
        self.b_dec.copy_(x.double().mean(0))
        centred = x - self.b_dec
        self.variance.copy_(centred.double().square().sum(1).mean())
        self._set_directions(kmeans_centres(centred, self.d_sae, generator))
        codes = centred.new_zeros(len(centred), self.d_sae)
        for _ in range(N_ROUNDS):
            for block, rows in zip(codes.split(BLOCK_ROWS), centred.split(BLOCK_ROWS), strict=True):
                block.copy_(self._updated(block, rows, UPDATES_PER_ROUND))
            moments, products = (codes.T @ codes).double(), (codes.T @ centred).double()
            moments.diagonal().add_(RIDGE * moments.diagonal().mean())
            codes *= self._set_directions(torch.linalg.solve(moments, products))

    def select(self, x: Vectors) -> Codes:
        # In float64: with more latents than dimensions the error is flat in many directions, and rounding adds up.
        zeros = x.new_zeros(min(BLOCK_ROWS, len(x)), self.d_sae, dtype=torch.float64)
        blocks = (rows.double() - self.b_dec for rows in x.split(BLOCK_ROWS))
        codes = [self._updated(zeros[: len(rows)], rows, self.config.n_updates) for rows in blocks]
        return Codes.from_dense(torch.cat(codes).to(x.dtype))

    def _updated(
        self, codes: Float[Tensor, "batch d_sae"], centred: Vectors, n_updates: int
    ) -> Float[Tensor, "batch d_sae"]:
        """Return non-negative codes z that make |z @ W_dec|^2 / 2 - z . pre smaller.

        Reading the reconstruction by W_enc, which equals W_dec.T until a map of the inputs is folded in, keeps the
        updates what they were behind that map.
        """
        W_dec, W_enc = self.W_dec.to(centred.dtype), self.W_enc.to(centred.dtype)
        pre, ahead, weight = centred @ W_enc + self.b_enc, codes, 1.0
        for _ in range(n_updates):
            following = (ahead - self.step * ((ahead @ W_dec) @ W_enc - pre)).relu_()
            next_weight = (1 + (1 + 4 * weight**2) ** 0.5) / 2
            ahead = following + (weight - 1) / next_weight * (following - codes)
            codes, weight = following, next_weight
        return codes

    def _set_directions(self, directions: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, " d_sae"]:
        """Take over directions, brought to norm 1, and return what their norms were."""
        lengths = torch.linalg.vector_norm(directions, dim=1).to(self.W_dec.dtype)
        self.W_dec.copy_(directions)
        normalise_rows_(self.W_dec)
        self.W_enc_rows.copy_(self.W_dec)
        self.step.copy_(1 / torch.linalg.matrix_norm(self.W_dec, 2).square())
        return lengths

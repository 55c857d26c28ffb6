"""Matryoshka: BatchTopK whose every prefix of latents reconstructs on its own, so that the first stay general.

    codes   = as in batch_topk.py
    x_hat_m = codes[:m] @ W_dec[:m] + b_dec                                  the first m latents alone
    loss    = mean over prefixes m of mean |x - x_hat_m|^2 / Var(x) + auxk_coefficient * auxk        see auxk.py

Bussmann, Nabeshima, Karvonen, Nanda: Learning multi-level features with Matryoshka sparse autoencoders, 2025,
arXiv 2503.17547.

The longest prefix is always the whole dictionary. Prefixes are fixed, or drawn anew for every batch from a Pareto
distribution cut off at d_sae, P(m > s) ~ s^-0.5: then no length is special, and latents come out in an order.

All prefixes cost one decoding: what latents between two lengths add is a row of its own, [prefixes * batch] rows with
the same entries as the codes, and a running sum over prefixes gives the reconstructions. What differs from the paper:
the errors are averaged over prefixes, not summed, so the auxiliary loss keeps its weight whatever their number; and
the prefix without latents, which only b_dec could serve, is not counted.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.base import Loss
from sae.dictionaries.batch_topk import BatchTopK, BatchTopKConfig
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

PARETO_EXPONENT = 0.5


@dataclass(frozen=True, kw_only=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Settings of Matryoshka: those of BatchTopK, and its prefixes."""

    kind: ClassVar[str] = "matryoshka"

    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Lengths of the prefixes as shares of d_sae, rising to 1."""

    n_random_prefixes: int | None = None
    """Draw so many prefixes anew for every batch, the whole dictionary among them, in place of `prefixes`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = self.prefixes
        if not all(0 < share <= 1 for share in shares) or shares[-1:] != (1,) or not _rises((0, *self.lengths)):
            raise ConfigError(
                f"prefixes: {list(shares)} of {self.d_sae} latents; allowed: shares of them that rise from one latent "
                "or more to 1."
            )
        if self.n_random_prefixes is not None and self.n_random_prefixes < 1:
            raise ConfigError(f"n_random_prefixes: {self.n_random_prefixes}; allowed: 1 or more, or null.")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of latents of every fixed prefix."""
        return tuple(round(share * self.d_sae) for share in self.prefixes)


class Matryoshka(BatchTopK):
    """Keeps what BatchTopK keeps, but every prefix of its latents has to reconstruct on its own."""

    config_type = MatryoshkaConfig
    config: MatryoshkaConfig
    error_term = "nested"

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return the mean squared error of all prefixes, and the auxiliary loss of the whole."""
        codes = self.select_batch(x)
        constant = self.b_dec if self.W_skip is None else self.b_dec + x @ self.W_skip
        x_hats = nested_decode(codes, self.draw_lengths(), self.W_dec) + constant
        x_hat = x_hats[-1]
        terms = {"nested": (1.0, (target - x_hats).square().sum(2).mean() / self.variance)}
        return self.summed(codes, x_hat, target, terms | {"auxk": self.auxiliary_term(x, target, x_hat, dead)})

    def draw_lengths(self) -> Int[Tensor, " prefixes"]:
        """Return the lengths of one batch's prefixes in rising order, on the host; random ones by torch's own state."""
        if self.config.n_random_prefixes is None:
            return torch.tensor(self.config.lengths)
        # The inverse of the Pareto distribution function, cut off at d_sae.
        uniform = torch.rand(self.config.n_random_prefixes - 1, dtype=torch.float64)
        beyond = 1 - uniform * (1 - self.d_sae**-PARETO_EXPONENT)
        drawn = (beyond ** (-1 / PARETO_EXPONENT)).floor().long().clamp(1, self.d_sae)
        return torch.cat([drawn.sort().values, torch.tensor([self.d_sae])])


def nested_decode(
    codes: Codes, lengths: Int[Tensor, " prefixes"], W_dec: Float[Tensor, "d_sae d_out"]
) -> Float[Tensor, "prefixes batch d_out"]:
    """Return what the first `lengths[i]` latents of every row add up to, for every i; lengths rise."""
    n_levels, batch = len(lengths), len(codes)
    level = torch.searchsorted(lengths.to(codes.indices), codes.indices, right=True)
    rows, order = (level * batch + codes.rows).sort(stable=True)
    offsets = torch.searchsorted(rows, torch.arange(n_levels * batch + 1, device=rows.device))
    added = kernels.decode(offsets, codes.indices[order], codes.values[order], W_dec)
    return added.view(n_levels, batch, -1).cumsum(0)


def _rises(numbers: tuple[int, ...]) -> bool:
    return all(smaller < larger for smaller, larger in pairwise(numbers))

"""ReLU with a penalty on the codes.

    codes = relu(W_enc.T @ (x - b_dec) + b_enc)
    x_hat = codes @ W_dec + b_dec
    loss  = mean |x - x_hat|^2 / Var(x) + strength * mean_rows sum_j f(u_j) + auxk_coefficient * auxk
    u     = codes / sqrt(Var(x))
    f(u)  = u  (l1),  tanh(tanh_scale * u)  (tanh),  (u + e)^p - e^p with p from 1 down to p_end  (lp)

l1: Bricken et al. 2023, Towards Monosemanticity. tanh: Jermyn et al. 2024, Circuits updates, February. lp: Karvonen et
al. 2024, Measuring progress in dictionary learning, arXiv 2408.00113 (p-annealing).

Weighting the penalty by the norms of the decoder's rows, as is usual where these are free, changes nothing here: rows
keep norm 1. strength is that of sparsity.py, see there. When p falls, the coefficient is changed so that the penalty of
that batch stays what it was, as in the source, which averages over several batches. The encoder's biases start where
latents fire a few times as often as wanted, not everywhere, so that no dense phase has to be paid for first.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.sparsity import SparsityConfig, WithSparsity
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

N_POWERS = 10
"""Steps in which p falls, evenly over the first five sixths of a run."""

SMALLEST = 1e-3
"""Added to codes before a power below 1, whose slope has no bound at zero."""


@dataclass(frozen=True, kw_only=True)
class ReLUConfig(SparsityConfig):
    """Settings of ReLU."""

    kind: ClassVar[str] = "relu"

    penalty: Literal["l1", "tanh", "lp"] = "l1"
    """What is penalised: codes, their tanh, or a power of them that is annealed."""

    tanh_scale: float = 20.0
    """How steep the tanh is, for codes in units of the vectors' standard deviation."""

    p_end: float = 0.2
    """Power at the end of a run with penalty lp."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tanh_scale > 0:
            raise ConfigError(f"tanh_scale: {self.tanh_scale}; allowed: above 0.")
        if not 0 < self.p_end <= 1:
            raise ConfigError(f"p_end: {self.p_end}; allowed: above 0, at most 1.")


class ReLU(WithSparsity):
    """Keeps every positive pre-activation.

    Attributes:
        power: scalar; the p that the coefficient was last adapted to.
    """

    config_type = ReLUConfig
    config: ReLUConfig
    power: Tensor

    def __init__(self, config: ReLUConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("power", torch.ones(()))
        self.next_power = 1.0

    def schedule(self, progress: float) -> None:
        super().schedule(progress)
        if self.config.penalty == "lp":
            done = min(1.0, int(progress * (N_POWERS + 2)) / N_POWERS)
            self.next_power = 1 + (self.config.p_end - 1) * done

    def initialise(
        self, sample: Vectors, generator: torch.Generator, target: Float[Tensor, "batch d_out"] | None = None
    ) -> None:
        super().initialise(sample, generator, target)
        with torch.no_grad():
            self.b_enc.sub_(self.first_cut(sample))

    def select(self, x: Vectors) -> Codes:
        zero = self.b_enc.new_zeros(())
        offsets, indices, values = kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, zero)
        return Codes(offsets, indices, values.relu(), self.d_sae)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error, penalty and auxiliary loss."""
        codes = self.select(x)
        x_hat = self.reconstruct(codes, x)
        penalty = self.penalty(codes)
        terms = {
            "mse": (1.0, self.normalised_error(target, x_hat)),
            "sparsity": (self.strength(codes), penalty),
            "auxk": self.auxiliary_term(x, target, x_hat, dead),
        }
        return self.summed(codes, x_hat, target, terms)

    def penalty(self, codes: Codes) -> Float[Tensor, ""]:
        """Return the mean penalty of a vector's codes; where p falls, adapt the coefficient to it."""
        u = codes.values / self.variance.sqrt()
        if self.config.penalty == "l1":
            return u.sum() / len(codes)
        if self.config.penalty == "tanh":
            return (self.config.tanh_scale * u).tanh().sum() / len(codes)
        with torch.no_grad():
            power = torch.full_like(self.power, self.next_power)
            change = _powers(u, self.power) / _powers(u, power)
            self.coefficient.mul_(torch.where(power == self.power, 1.0, change.nan_to_num(1.0, 1.0, 1.0)))
            self.power.copy_(power)
        return _powers(u, self.power) / len(codes)


def _powers(u: Float[Tensor, " nnz"], p: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return ((u + SMALLEST) ** p - SMALLEST**p).sum()

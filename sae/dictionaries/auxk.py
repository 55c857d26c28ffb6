"""The auxiliary loss that brings dead latents back, for any architecture.

    e     = x - x_hat                                                    detached
    e_hat = relu(pre) on the k_aux largest dead latents @ W_dec          no bias: e has it subtracted already
    auxk  = mean |e_hat - e|^2 / Var(e)

Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike, Wu: Scaling and evaluating sparse autoencoders,
2024, arXiv 2406.04093, section A.2.

Var is the total variance over all coordinates of the batch. The loss reaches the encoder as well as the decoder,
through the same pre-activations. With nothing dead it is zero. What differs from the paper: k_aux is half of the
vectors' width unless given (the paper: a power of two close to it), and Var(e) is floored at 1e-6 of Var(x), so that a
dictionary that reconstructs perfectly does not blow the term up.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class AuxKConfig(DictionaryConfig):
    """Settings of the auxiliary loss."""

    auxk_coefficient: float = 1 / 32
    """Weight of the auxiliary loss; 0 switches it off."""

    k_aux: int | None = None
    """Dead latents that reconstruct the residual, per vector; half of the vectors' width if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.auxk_coefficient >= 0:
            raise ConfigError(f"auxk_coefficient: {self.auxk_coefficient}; allowed: 0 or more.")
        if self.k_aux is not None and not 1 <= self.k_aux <= self.d_sae:
            raise ConfigError(f"k_aux: {self.k_aux} of {self.d_sae} latents; allowed: 1 to {self.d_sae}.")

    def candidates(self, dead: Bool[Tensor, " d_sae"]) -> Bool[Tensor, " d_sae"] | None:
        """Return the dead latents, or None where the loss is switched off."""
        return dead if self.auxk_coefficient > 0 else None

    def n_revived(self, d_out: int) -> int:
        """Return how many dead latents take part, per vector."""
        return min(self.k_aux or max(d_out // 2, 1), self.d_sae)


class WithAuxK(Dictionary):
    """Base of the architectures that bring dead latents back by the auxiliary loss."""

    config: AuxKConfig

    def auxiliary_term(
        self, x: Vectors, target: Tensor, x_hat: Tensor, dead: Bool[Tensor, " d_sae"]
    ) -> tuple[float, Float[Tensor, ""]]:
        """Return coefficient and auxiliary loss, reading the dead latents' pre-activations apart from the others'."""
        candidates = self.config.candidates(dead)
        if candidates is None:
            return 0.0, x_hat.new_zeros(())
        values, indices = kernels.encode_topk(
            x, self.centre, self.W_enc_rows, self.b_enc, 0, candidates, self.config.n_revived(self.d_out)
        )
        revived = Codes.from_topk(indices, values.relu(), self.d_sae)
        return self.config.auxk_coefficient, self.auxiliary_error((target - x_hat).detach(), revived, dead)

    def auxiliary_error(self, error: Tensor, revived: Codes, dead: Bool[Tensor, " d_sae"]) -> Float[Tensor, ""]:
        """Squared error of the dead latents' reconstruction of the residual, over the residual's variance."""
        if len(revived.indices) == 0:
            return error.new_zeros(())
        error_hat = kernels.decode(revived.offsets, revived.indices, revived.values, self.W_dec)
        variance = (error - error.mean(0)).square().sum(1).mean()
        floored = torch.maximum(variance, 1e-6 * self.variance)
        return (error_hat - error).square().sum(1).mean() / floored * dead.any()

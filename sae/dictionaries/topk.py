"""TopK with an auxiliary loss for dead latents.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = relu(pre) on the k latents with the largest pre, 0 elsewhere
    x_hat = codes @ W_dec + b_dec
    e     = x - x_hat                                                    detached
    e_hat = relu(pre) on the k_aux largest dead latents @ W_dec          no bias: e has it subtracted already
    loss  = mean |x - x_hat|^2 / Var(x) + auxk_coefficient * mean |e_hat - e|^2 / Var(e)

Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike, Wu: Scaling and evaluating sparse autoencoders,
2024, arXiv 2406.04093, sections 2.3, 2.4 and A.2.

Var is the total variance over all coordinates: of the sample given to `initialise` for x, of the batch for e. The
auxiliary term reaches the encoder as well as the decoder, through the same pre-activations. With nothing dead it is
zero. What differs from the paper: rows of the decoder are drawn at random rather than copied from the encoder's
initialisation, k_aux is d_in // 2 unless given (the paper: a power of two close to it), and Var(e) is floored at 1e-6
of Var(x), so that a dictionary that reconstructs perfectly does not blow the term up.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig, Loss
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class TopKConfig(DictionaryConfig):
    """Settings of TopK."""

    kind: ClassVar[str] = "topk"

    k: int = 32
    """Latents kept per vector."""

    auxk_coefficient: float = 1 / 32
    """Weight of the auxiliary loss; 0 switches it off."""

    k_aux: int | None = None
    """Dead latents that reconstruct the residual, per vector; half of d_in if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ConfigError(f"k: {self.k} of {self.d_sae} latents; allowed: 1 to {self.d_sae}.")
        if not self.auxk_coefficient >= 0:
            raise ConfigError(f"auxk_coefficient: {self.auxk_coefficient}; allowed: 0 or more.")
        if self.k_aux is not None and not 1 <= self.k_aux <= self.d_sae:
            raise ConfigError(f"k_aux: {self.k_aux} of {self.d_sae} latents; allowed: 1 to {self.d_sae}.")


class TopK(Dictionary):
    """Keeps the k largest pre-activations of every vector."""

    config_type = TopKConfig
    config: TopKConfig

    def encode(self, x: Vectors) -> Codes:
        values, indices = kernels.encode_topk(self._checked(x), self.b_dec, self.W_enc_rows, self.b_enc, self.config.k)
        return Codes.from_topk(indices, values.relu(), self.d_sae)

    def loss(self, x: Vectors, dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return the normalised squared error plus the auxiliary loss of the latents marked in `dead`."""
        x, k = self._checked(x), self.config.k
        candidates = dead if self.config.auxk_coefficient > 0 else None
        k_aux = self.config.k_aux or max(self.d_in // 2, 1)
        values, indices = kernels.encode_topk(
            x, self.b_dec, self.W_enc_rows, self.b_enc, k, candidates, min(k_aux, self.d_sae)
        )
        codes = Codes.from_topk(indices[:, :k], values[:, :k].relu(), self.d_sae)
        revived = Codes.from_topk(indices[:, k:], values[:, k:].relu(), self.d_sae)
        x_hat = self.decode(codes)
        mse = self._normalised_error(x, x_hat)
        auxk = self._auxiliary_error((x - x_hat).detach(), revived) * dead.any()
        parts = {"mse": mse.detach(), "auxk": auxk.detach()}
        return Loss(mse + self.config.auxk_coefficient * auxk, parts, codes, x_hat)

    def _auxiliary_error(self, error: Vectors, revived: Codes) -> Float[Tensor, ""]:
        """Squared error of the dead latents' reconstruction of the residual, over the residual's variance."""
        if len(revived.indices) == 0:
            return error.new_zeros(())
        error_hat = kernels.decode(revived.offsets, revived.indices, revived.values, self.W_dec)
        variance = (error - error.mean(0)).square().sum(1).mean()
        return (error_hat - error).square().sum(1).mean() / torch.maximum(variance, 1e-6 * self.variance)

"""TopK: the k largest pre-activations of every vector.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = relu(pre) on the k latents with the largest pre, 0 elsewhere
    x_hat = codes @ W_dec + b_dec
    loss  = mean |x - x_hat|^2 / Var(x) + auxk_coefficient * auxk                    see auxk.py

Gao, Dupre la Tour, Tillman, Goh, Troll, Radford, Sutskever, Leike, Wu: Scaling and evaluating sparse autoencoders,
2024, arXiv 2406.04093, sections 2.3, 2.4 and A.2.

AbsTopK keeps the k pre-activations that are furthest from zero, with their sign, so one latent can stand for two
opposite things (arXiv 2510.00404).

Var is the total variance over all coordinates of the sample given to `initialise`. What differs from the paper: rows of
the decoder are drawn at random rather than copied from the encoder's initialisation.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.auxk import AuxKConfig, WithAuxK
from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class TopKConfig(AuxKConfig):
    """Settings of TopK."""

    kind: ClassVar[str] = "topk"

    k: int = 32
    """Latents kept per vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= self.d_sae:
            raise ConfigError(f"k: {self.k} of {self.d_sae} latents; allowed: 1 to {self.d_sae}.")


class TopK(WithAuxK):
    """Keeps the k largest pre-activations of every vector."""

    config_type = TopKConfig
    config: TopKConfig
    absolute: ClassVar[bool] = False
    """Whether "largest" means furthest from zero."""

    def select(self, x: Vectors) -> Codes:
        values, indices = kernels.encode_topk(
            x, self.centre, self.W_enc_rows, self.b_enc, self.config.k, absolute=self.absolute
        )
        return Codes.from_topk(indices, self._kept(values), self.d_sae)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error and auxiliary loss; the dead latents' pre-activations come out of the same product."""
        k, candidates = self.config.k, self.config.candidates(dead)
        values, indices = kernels.encode_topk(
            x,
            self.centre,
            self.W_enc_rows,
            self.b_enc,
            k,
            candidates,
            self.config.n_revived(self.d_out),
            absolute=self.absolute,
        )
        codes = Codes.from_topk(indices[:, :k], self._kept(values[:, :k]), self.d_sae)
        revived = Codes.from_topk(indices[:, k:], values[:, k:].relu(), self.d_sae)
        x_hat = self.reconstruct(codes, x)
        auxk = self.auxiliary_error((target - x_hat).detach(), revived, dead)
        terms = {"mse": (1.0, self.normalised_error(target, x_hat)), "auxk": (self.config.auxk_coefficient, auxk)}
        return self.summed(codes, x_hat, target, terms)

    def _kept(self, values: Tensor) -> Tensor:
        return values.relu()


@dataclass(frozen=True, kw_only=True)
class AbsTopKConfig(TopKConfig):
    """Settings of AbsTopK: those of TopK."""

    kind: ClassVar[str] = "abs_topk"


class AbsTopK(TopK):
    """Keeps the k pre-activations furthest from zero, signs included."""

    config_type = AbsTopKConfig
    absolute = True

    def _kept(self, values: Tensor) -> Tensor:
        return values

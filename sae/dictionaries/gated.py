"""Gated: one set of pre-activations decides which latents fire, a rescaled copy how strongly.

    pi    = W_enc.T @ (x - b_dec)
    gate  = pi + b_enc                                                    b_enc is the gate's bias
    codes = relu(exp(r_mag) * pi + b_mag)   where gate > 0, 0 elsewhere
    x_hat = codes @ W_dec + b_dec
    loss  = mean |x - x_hat|^2 / Var(x) + strength * mean_rows sum relu(gate) / sqrt(Var(x))
          + mean |x - relu(gate) @ W_dec - b_dec|^2 / Var(x) + auxk_coefficient * auxk

Rajamanoharan, Conmy, Smith, Lieberum, Varma, Kramar, Shah, Nanda: Improving dictionary learning with gated sparse
autoencoders, 2024, arXiv 2404.16014.

In the third term, which is what gives the gate a gradient, W_dec and b_dec are held fixed, as in the paper. strength is
that of sparsity.py; the auxiliary loss for dead latents is not in the paper.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.sparsity import SparsityConfig, WithSparsity
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class GatedConfig(SparsityConfig):
    """Settings of Gated."""

    kind: ClassVar[str] = "gated"


class Gated(WithSparsity):
    """Separates whether a latent fires from how strongly.

    Attributes:
        r_mag: [d_sae]; logarithm of the magnitudes' scale.
        b_mag: [d_sae]; bias of the magnitudes.
    """

    config_type = GatedConfig
    config: GatedConfig

    def __init__(self, config: GatedConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.r_mag = nn.Parameter(torch.zeros(config.d_sae))
        self.b_mag = nn.Parameter(torch.zeros(config.d_sae))

    def initialise(
        self, sample: Vectors, generator: torch.Generator, target: Float[Tensor, "batch d_out"] | None = None
    ) -> None:
        super().initialise(sample, generator, target)
        with torch.no_grad():
            self.b_mag.copy_(self.b_enc)
            self.b_enc.sub_(self.first_cut(sample))

    def select(self, x: Vectors) -> Codes:
        return self.gated(x)[1]

    def gated(self, x: Vectors) -> tuple[Codes, Codes]:
        """Return the open gates and the codes behind them, in the same entries."""
        zero = self.b_enc.new_zeros(())
        offsets, indices, gates = kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, zero)
        opened = gates.relu()
        read = opened - kernels.gather(self.b_enc, offsets, indices)
        scale, bias = (kernels.gather(one, offsets, indices) for one in (self.r_mag.exp(), self.b_mag))
        magnitudes = scale * read + bias
        values = torch.where(gates > 0, magnitudes.relu(), 0)
        return Codes(offsets, indices, opened, self.d_sae), Codes(offsets, indices, values, self.d_sae)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error, penalty on the gates, what the gates rebuild, and auxiliary loss."""
        gates, codes = self.gated(x)
        x_hat = self.reconstruct(codes, x)
        rebuilt = kernels.decode(gates.offsets, gates.indices, gates.values, self.W_dec.detach()) + self.b_dec.detach()
        if self.W_skip is not None:
            rebuilt = rebuilt + (x @ self.W_skip).detach()
        terms = {
            "mse": (1.0, self.normalised_error(target, x_hat)),
            "sparsity": (self.strength(codes), gates.values.sum() / len(codes) / self.variance.sqrt()),
            "gate": (1.0, self.normalised_error(target, rebuilt)),
            "auxk": self.auxiliary_term(x, target, x_hat, dead),
        }
        return self.summed(codes, x_hat, target, terms)

    @torch.no_grad()
    def scale_codes(self, factor: float) -> None:
        super().scale_codes(factor)
        self.b_mag.mul_(factor)

    @torch.no_grad()
    def shift_codes(self, shift: Float[Tensor, " d_sae"]) -> None:
        """Add to the pre-activations, which magnitudes read behind their scale."""
        super().shift_codes(shift)
        self.b_mag.add_(self.r_mag.exp() * shift.to(self.b_mag))

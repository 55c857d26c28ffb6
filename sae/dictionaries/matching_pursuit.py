"""Matching pursuit: latents are chosen one after the other, each on what the ones before have left over.

    r_0 = x - b_dec
    j_t = argmax_j W_dec[j] . r_{t-1},   v_t = relu(W_dec[j_t] . r_{t-1}),   r_t = r_{t-1} - v_t W_dec[j_t]     t = 1..k
    codes[j] = sum of v_t over the steps with j_t = j
    x_hat = codes @ W_dec + b_dec                                                                           = x - r_k
    loss  = mean |x - x_hat|^2 / Var(x) + auxk_coefficient * auxk

Costa, Fel, Lubana, Tolooshams, Ba: From flat to hierarchical: extracting sparse representations with matching pursuit,
2025, arXiv 2506.03093 (MP-SAE). Mallat, Zhang: Matching pursuits with time-frequency dictionaries, 1993.

Correlated latents compete, where a one-shot encoder would let all of them fire, and every step lowers the error. One
set of directions reads and writes: while training only W_dec is learned, through both of its roles, the choice of
latents held fixed; W_enc is a copy, renewed after every step, and b_enc stays zero and is not used. Each choice needs
all pre-activations of a residual, so encoding costs several times what one encoder product does (kernels/pursuit.py).
What is read is taken away where it was read, so there is no transcoder of this kind.

The auxiliary loss goes on with the pursuit among dead latents: auxk = |r_k - what k_aux further steps take of it|^2 /
Var(r_k), with r_k detached. What differs from the paper: the form of this loss; and a latent whose product is negative
is not taken, so that codes are never negative.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.dictionaries.auxk import WithAuxK
from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.topk import TopKConfig
from sae.kernels.pursuit import encode_pursuit
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class MatchingPursuitConfig(TopKConfig):
    """Settings of matching pursuit: those of TopK; k is the number of steps."""

    kind: ClassVar[str] = "matching_pursuit"

    k_aux: int | None = None
    """Steps of the auxiliary loss among dead latents, per vector; 1 if not given."""

    def n_revived(self, d_out: int) -> int:
        return self.k_aux or 1


class MatchingPursuit(WithAuxK):
    """Chooses latents one after the other, each on what the ones before have left over."""

    config_type = MatchingPursuitConfig
    config: MatchingPursuitConfig
    transcodes = False

    def __init__(self, config: MatchingPursuitConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.W_enc_rows.requires_grad_(False)
        self.b_enc.requires_grad_(False)

    def select(self, x: Vectors) -> Codes:
        return merged(*encode_pursuit(x, self.centre, self.W_enc_rows, self.W_dec, self.config.k), self.d_sae)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error and auxiliary loss; gradients reach W_dec as what reads and as what writes."""
        codes = merged(*encode_pursuit(x, self.centre, self.W_dec, self.W_dec, self.config.k), self.d_sae)
        x_hat = self.reconstruct(codes, x)
        terms = {"mse": (1.0, self.normalised_error(target, x_hat))}
        return self.summed(codes, x_hat, target, terms | {"auxk": self.auxiliary_term(x, target, x_hat, dead)})

    def auxiliary_term(
        self, x: Vectors, target: Tensor, x_hat: Tensor, dead: Bool[Tensor, " d_sae"]
    ) -> tuple[float, Float[Tensor, ""]]:
        """Return coefficient and auxiliary loss: dead latents go on where the pursuit has ended."""
        candidates, residual = self.config.candidates(dead), (target - x_hat).detach()
        if candidates is None:
            return 0.0, x_hat.new_zeros(())
        centre, n = residual.new_zeros(self.d_in), self.config.n_revived(self.d_out)
        revived = merged(*encode_pursuit(residual, centre, self.W_dec, self.W_dec, n, candidates), self.d_sae)
        return self.config.auxk_coefficient, self.auxiliary_error(residual, revived, dead)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to norm 1 and have the encoder read along them."""
        super().after_step()
        self.W_enc_rows.copy_(self.W_dec)


def merged(values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], d_sae: int) -> Codes:
    """Return codes in which a latent that was chosen several times stands once, with the sum of its values."""
    same = indices[:, :, None] == indices[:, None, :]
    total = (same * values[:, None, :]).sum(2)
    kept = ~same.tril(-1).any(2) & (total > 0)
    offsets = torch.zeros(len(values) + 1, dtype=torch.int64, device=values.device)
    offsets[1:] = kept.sum(1).cumsum(0)
    return Codes(offsets, indices[kept], total[kept], d_sae)

"""How strongly a penalty presses: a coefficient that warms up and, if asked, finds the L0 that is wanted.

    strength = warm-up * coefficient * exp(excess)             excess = log(L0 / target_l0), within [-1, 1]
    coefficient <- coefficient * exp(0.005 * excess)           after the warm-up, every step

A penalty's coefficient has no natural scale: what leaves every latent on in one data set kills all in another. With a
target the coefficient is the integral part of a controller on the logarithm of L0, and the strength adds a proportional
part, which damps it. Everything stays on the device and in the state of the dictionary, so a resumed run goes on alike.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries.auxk import AuxKConfig, WithAuxK
from sae.dictionaries.codes import Codes
from sae.errors import ConfigError
from sae.tensors import Vectors

INTEGRAL_GAIN = 0.005
LARGEST_EXCESS = 1.0
FIRST_L0 = 4.0
"""Active latents per vector at the start, in multiples of the target; or of `UNTARGETED_L0`."""
UNTARGETED_L0 = 32.0
SAMPLE_ROWS = 4096
LATENT_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class SparsityConfig(AuxKConfig):
    """Settings of a penalty's strength."""

    coefficient: float = 0.1
    """Weight of the penalty beside the normalised squared error; with a target, what it starts from."""

    warmup_fraction: float = 0.1
    """Share of the run over which the penalty rises from zero."""

    target_l0: float | None = 32.0
    """Active latents per vector that the coefficient is moved towards; null keeps the coefficient as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.coefficient >= 0 or (self.target_l0 is not None and self.coefficient == 0):
            raise ConfigError(f"coefficient: {self.coefficient}; allowed: 0 or more, above 0 with a target_l0.")
        if not 0 <= self.warmup_fraction <= 1:
            raise ConfigError(f"warmup_fraction: {self.warmup_fraction}; allowed: 0 to 1.")
        if self.target_l0 is not None and not self.target_l0 > 0:
            raise ConfigError(f"target_l0: {self.target_l0}; allowed: above 0, or null.")


class WithSparsity(WithAuxK):
    """Base of the architectures that a penalty makes sparse.

    Attributes:
        coefficient: scalar; moves towards `target_l0`.
    """

    config: SparsityConfig
    coefficient: Tensor

    def __init__(self, config: SparsityConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("coefficient", torch.tensor(float(config.coefficient)))
        self.warmup = 1.0

    def schedule(self, progress: float) -> None:
        super().schedule(progress)
        share = self.config.warmup_fraction
        self.warmup = min(1.0, progress / share) if share else 1.0

    @torch.no_grad()
    def strength(self, codes: Codes) -> Float[Tensor, ""]:
        """Return what the penalty of a batch is multiplied by, and move the coefficient."""
        strength = self.warmup * self.coefficient
        if self.config.target_l0 is None:
            return strength
        l0 = codes.l0().float().mean().clamp_min(1e-3)
        excess = (l0 / self.config.target_l0).log().clamp(-LARGEST_EXCESS, LARGEST_EXCESS)
        if self.warmup == 1:
            self.coefficient.mul_((INTEGRAL_GAIN * excess).exp())
        return strength * excess.exp()

    @torch.no_grad()
    def first_cut(self, sample: Vectors) -> Float[Tensor, " d_sae"]:
        """Return pre-activations above which every latent fires equally often, `FIRST_L0` times the target in all.

        Midway between two that occur: on one that occurs, rounding would decide whether the latent fires.
        """
        x = self.normalised(sample)[:SAMPLE_ROWS]
        share = FIRST_L0 * (self.config.target_l0 or UNTARGETED_L0) / self.d_sae
        n_fired = max(1, min(len(x) - 1, round(len(x) * min(share, 0.5))))
        cuts = []
        for rows, bias in zip(self.W_enc_rows.split(LATENT_BLOCK), self.b_enc.split(LATENT_BLOCK), strict=True):
            pre = torch.addmm(bias, x - self.centre, rows.T)
            cuts.append(pre.T.contiguous().topk(n_fired + 1, dim=1).values[:, n_fired - 1 :].mean(1))
        return torch.cat(cuts)

"""JumpReLU: every latent has a threshold of its own, which is learned.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = pre where pre > threshold, 0 elsewhere
    x_hat = codes @ W_dec + b_dec
    loss  = mean |x - x_hat|^2 / Var(x) + strength * penalty + auxk_coefficient * auxk + pre_act_coefficient * pre_act
    penalty = mean L0  (step),   mean_rows sum tanh(tanh_scale * codes / sqrt(Var(x)))  (tanh),
              (mean L0 / target_l0 - 1)^2  (quadratic)
    pre_act = mean_rows sum relu(threshold - pre) / sqrt(Var(x))                             (off by default)

Codes and L0 jump at the threshold; their gradient to it is that of a ramp of the width w = bandwidth * sqrt(Var(x)):

    d codes / d threshold = -threshold / w,   d L0 / d threshold = -1 / w      where |pre - threshold| < w / 2

Rajamanoharan, Lieberum, Sonnerat, Conmy, Varma, Kramar, Nanda: Jumping ahead, 2024, arXiv 2407.14435; tanh and the
quadratic loss: Conerly et al. 2024, Circuits updates, and the paper's appendix. The last term, which draws latents that
do not fire back towards their thresholds: Conerly et al. 2025, Circuits updates of January.

The entries within the ramp are found together with the active ones, so all of this is sparse. So is the last term,
although it is about the silent latents: relu(t - p) = t - p + relu(p - t), where p is affine in x, so that its mean
over rows is p at the mean of the rows, and the rest concerns the active latents.

What differs from the paper: thresholds themselves are learned, not their logarithms, and kept from falling below zero;
they start where latents fire a few times as often as wanted; strength is that of sparsity.py; the auxiliary loss.
Thresholds stay float32 whatever the dictionary is converted to: in bfloat16 an update of one in a thousand is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.sparsity import SparsityConfig, WithSparsity
from sae.errors import ConfigError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class JumpReLUConfig(SparsityConfig):
    """Settings of JumpReLU."""

    kind: ClassVar[str] = "jumprelu"

    coefficient: float = 0.003
    """Weight of the penalty beside the normalised squared error; with a target, what it starts from."""

    penalty: Literal["step", "tanh", "quadratic"] = "step"
    """What is penalised: L0, a smooth count of the codes, or the squared distance of L0 from its target."""

    tanh_scale: float = 20.0
    """How steep the tanh is, for codes in units of the vectors' standard deviation."""

    bandwidth: float = 0.05
    """Width of the ramp in place of the jump, in units of the vectors' standard deviation."""

    pre_act_coefficient: float = 0.0
    """Weight of how far pre-activations lie below their thresholds, over all latents; 0 leaves the term out.

    The 3e-6 of Conerly et al., and of SAELens, which counts dead latents only, stands beside a squared error that is
    not divided by Var(x); here it is 3e-6 / sqrt(Var(x)).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pre_act_coefficient >= 0:
            raise ConfigError(f"pre_act_coefficient: {self.pre_act_coefficient}; allowed: 0 or more.")
        for name in ("tanh_scale", "bandwidth"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: {getattr(self, name)}; allowed: above 0.")
        if self.penalty == "quadratic" and self.target_l0 is None:
            raise ConfigError("target_l0: null; the quadratic penalty is the distance from it.")


class JumpReLU(WithSparsity):
    """Keeps pre-activations above learned thresholds.

    Attributes:
        threshold: [d_sae], float32.
    """

    config_type = JumpReLUConfig
    config: JumpReLUConfig

    def __init__(self, config: JumpReLUConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.threshold = nn.Parameter(torch.zeros(config.d_sae))

    def initialise(
        self, sample: Vectors, generator: torch.Generator, target: Float[Tensor, "batch d_out"] | None = None
    ) -> None:
        super().initialise(sample, generator, target)
        with torch.no_grad():
            self.threshold.copy_(self.first_cut(sample).clamp_min(0))

    def select(self, x: Vectors) -> Codes:
        threshold = self.threshold.detach()
        return Codes(*kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, threshold), self.d_sae)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error, penalty and auxiliary loss."""
        width = self.config.bandwidth * self.variance.sqrt()
        lowest = (self.threshold - width / 2).detach()
        offsets, indices, pre = kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, lowest)
        threshold = kernels.gather(self.threshold, offsets, indices)
        cut, above = threshold.detach(), pre.detach() > threshold.detach()
        near = (pre.detach() - cut).abs() < width / 2
        # Zero in value; its gradient to the threshold is 1 / width within the ramp.
        ramp = torch.where(near, (threshold - cut) / width, 0)
        codes = Codes(offsets, indices, torch.where(above, pre, 0) - cut * ramp, self.d_sae)
        x_hat = self.reconstruct(codes, x)
        l0 = (above.to(pre.dtype) - ramp).sum() / len(x)
        terms = {
            "mse": (1.0, self.normalised_error(target, x_hat)),
            "sparsity": self._penalty(codes, l0),
            "auxk": self.auxiliary_term(x, target, x_hat, dead),
        }
        if self.config.pre_act_coefficient > 0:
            terms["pre_act"] = (self.config.pre_act_coefficient, self._pre_act(x, (pre - threshold).relu().sum()))
        return self.summed(codes, x_hat, target, terms)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to norm 1, and thresholds back to zero or more."""
        super().after_step()
        self.threshold.clamp_min_(0)

    @torch.no_grad()
    def scale_codes(self, factor: float) -> None:
        super().scale_codes(factor)
        self.threshold.mul_(factor)

    def _pre_act(self, x: Vectors, above: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return how far pre-activations lie below their thresholds, given how far the others lie above, in all."""
        pre_of_mean = self.W_enc_rows @ (x.mean(0) - self.centre) + self.b_enc
        return ((self.threshold - pre_of_mean).sum() + above / len(x)) / self.variance.sqrt()

    def _penalty(self, codes: Codes, l0: Float[Tensor, ""]) -> tuple[Tensor, Tensor]:
        if self.config.penalty == "quadratic":
            assert self.config.target_l0 is not None, "checked by the config"
            return self.warmup * self.coefficient, (l0 / self.config.target_l0 - 1).square()
        if self.config.penalty == "step":
            return self.strength(codes), l0
        smooth = (self.config.tanh_scale * codes.values / self.variance.sqrt()).tanh()
        return self.strength(codes), smooth.sum() / len(codes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert and move the module, but leave thresholds in float32."""
        exact = self.threshold.detach().clone()
        moved: Any = super()._apply(fn, recurse)
        if self.threshold.dtype in (torch.bfloat16, torch.float16):
            self.threshold.data = exact.to(self.threshold.device)
        return moved

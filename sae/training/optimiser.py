"""What turns gradients into new parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.errors import ConfigError

REFERENCE_LR = 4e-4
REFERENCE_D_SAE = 2**14


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam (Kingma & Ba, arXiv 1412.6980), all parameters in one fused call."""

    kind: ClassVar[str] = "adam"

    lr: float | None = None
    """Peak learning rate, for inputs of expected norm sqrt(d_in); by default 4e-4 / sqrt(d_sae / 2**14)."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running means of the gradient and of its square.

    A latent's gradient comes in bursts, when it fires; a short memory of its square lets rare latents keep up. On the
    small truth of docs/benchmarks.md 0.99 recovers 95 % of the features where 0.999 recovers 87 %."""

    eps: float = 6.25e-10
    """Added to the root of the mean square; the value of Gao et al. (arXiv 2406.04093), for gradients this small."""

    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm over all parameters; null leaves them as they are."""

    def __post_init__(self) -> None:
        if self.lr is not None and self.lr <= 0:
            raise ConfigError(f"lr {self.lr}: must be above 0, or null for the default rule.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas {self.betas}: both must be at least 0 and below 1.")
        if self.eps <= 0:
            raise ConfigError(f"eps {self.eps}: must be above 0.")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(f"max_grad_norm {self.max_grad_norm}: must be above 0, or null for no clipping.")


def default_lr(d_sae: int) -> float:
    """Return 4e-4 / sqrt(d_sae / 2**14), twice the rule of EleutherAI's `sparsify` and of `dictionary_learning`.

    The scaling with the root of d_sae is the one that Gao et al. (arXiv 2406.04093, appendix A) fitted. Runs of a few
    million vectors gain from still more, until latents die.
    """
    return REFERENCE_LR / (d_sae / REFERENCE_D_SAE) ** 0.5


def make_optimiser(parameters: Iterable[nn.Parameter], config: AdamConfig) -> torch.optim.Adam:
    """Return a fused Adam; its learning rate is set by the schedule before every step."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    assert all(parameter.is_contiguous() for parameter in trained), "moments are saved and restored contiguous"
    return torch.optim.Adam(trained, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Float[Tensor, ""]:
    """Scale the gradients down to `max_norm` and return the norm they had, without waiting for the device.

    A fused optimiser walks parameter and gradient as flat memory and is silently wrong where their strides differ,
    so equal strides are asserted here.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in with_gradient if parameter.grad is not None]
    for parameter, gradient in zip(with_gradient, gradients, strict=True):
        assert parameter.stride() == gradient.stride(), "the gradient's strides differ from its parameter's"
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(with_gradient, max_norm, norm)
    return norm

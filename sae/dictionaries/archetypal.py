"""Archetypal: latents write along mixtures of real vectors, so that another seed finds much the same directions.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = relu(pre) on the k latents with the largest pre, 0 elsewhere
    W_dec = rows of (mixture @ points + relaxation), brought to norm 1
            mixture = softmax(GAIN * logits);  |relaxation_i| <= delta
    x_hat = codes @ W_dec + b_dec
    loss  = that of TopK                                                                       see topk.py

Fel, Lubana, Prince, Kowal, Boutin, Papadimitriou, Wang, Wattenberg, Ba, Konkle: Archetypal SAE: adaptive and stable
dictionary learning for concept extraction in large vision models, 2025, arXiv 2502.12892 (RA-SAE; delta = 0: A-SAE).

The points are k-means centres of a sample, less the b_dec at the start. What is learned of the decoder are mixture and
relaxation. W_dec is put together from them after every step and its gradient handed on to them before every step, so
that in between it is a matrix like any other, to which sparse kernels apply, and the optimiser never sees it move.

What differs from the paper: directions have norm 1 as everywhere here, so they lie in the cone of the points rather
than in their hull, and no common factor is needed; delta counts in norms of the points, for it should not depend on
the scale of the data.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.dictionaries.kmeans import kmeans_centres
from sae.dictionaries.topk import TopK, TopKConfig
from sae.errors import ConfigError
from sae.tensors import Vectors

GAIN = 32.0
"""Logits per unit of their parameter: steps of the size that suits directions should also move shares."""

FIRST_ROWS = 2048
"""Vectors on which the length of the first reconstructions is measured."""

BACKGROUND = 0.05
"""What all points together share of a direction at the start, so that any of them can gain."""


@dataclass(frozen=True, kw_only=True)
class ArchetypalConfig(TopKConfig):
    """Settings of archetypal dictionaries: those of TopK, and what directions are mixed from."""

    kind: ClassVar[str] = "archetypal"

    n_points: int = 1024
    """Centres of the sample from which directions are mixed."""

    delta: float = 1.0
    """How far a direction may leave the mixtures, in mean norms of the points; 0 keeps it among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_points < 1:
            raise ConfigError(f"n_points: {self.n_points}; allowed: 1 or more.")
        if not self.delta >= 0:
            raise ConfigError(f"delta: {self.delta}; allowed: 0 or more.")


class Archetypal(TopK):
    """TopK whose directions are mixtures of points of the data, but for a bounded rest.

    Attributes:
        points: [n_points d_out]; centres of the sample, less the first b_dec, over their mean norm.
        logits: [d_sae n_points]; what `mixture` is made of.
        relaxation: [d_sae d_out].
        lengths: [d_sae]; norms of mixture @ points + relaxation.
    """

    config_type = ArchetypalConfig
    config: ArchetypalConfig
    sample_vectors = 32_768
    points: Tensor
    lengths: Tensor

    def __init__(self, config: ArchetypalConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.logits = nn.Parameter(torch.zeros(config.d_sae, config.n_points))
        self.relaxation = nn.Parameter(torch.zeros(config.d_sae, self.d_out))
        self.register_buffer("points", torch.zeros(config.n_points, self.d_out))
        self.register_buffer("lengths", torch.ones(config.d_sae))

    @property
    def mixture(self) -> Float[Tensor, "d_sae n_points"]:
        """Share of every point in every direction."""
        return (GAIN * self.logits).softmax(1)

    @torch.no_grad()
    def initialise(
        self, sample: Vectors, generator: torch.Generator, target: Float[Tensor, "batch d_out"] | None = None
    ) -> None:
        """Take the points from a sample, and start every latent between two of them, nearer to one.

        Raises:
            DictionaryError: the sample has fewer vectors than there should be points.
        """
        super().initialise(sample, generator, target)
        goal = self.normalised(sample) if target is None else target
        points = kmeans_centres(goal.to(self.b_dec.dtype), self.config.n_points, generator) - self.b_dec
        self.points.copy_(points / torch.linalg.vector_norm(points, dim=1).mean())
        self.logits.copy_(self._first_mixture(generator).log() / GAIN)
        self.relaxation.zero_()
        self.after_step()
        if not self.is_transcoder:
            self.W_enc_rows.copy_(self.W_dec)
            self._fit_length(goal[:FIRST_ROWS])

    @torch.no_grad()
    def after_backward(self) -> None:
        """Hand the gradient of the directions on to what they are made of."""
        super().after_backward()
        if self.W_dec.grad is not None:
            self.relaxation.grad = self.W_dec.grad / self.lengths[:, None]
            mixture, gradient = self.mixture, self.relaxation.grad @ self.points.T
            along = torch.linalg.vecdot(mixture, gradient)[:, None]
            self.logits.grad = gradient.sub_(along).mul_(mixture).mul_(GAIN)
            self.W_dec.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the relaxation within its bound, and put the directions together."""
        norm = torch.linalg.vector_norm(self.relaxation, dim=1, keepdim=True)
        self.relaxation.mul_((self.config.delta / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1))
        torch.addmm(self.relaxation, self.mixture, self.points, out=self.W_dec)
        torch.linalg.vector_norm(self.W_dec, dim=1, out=self.lengths)
        self.lengths.clamp_min_(torch.finfo(norm.dtype).tiny)
        self.W_dec.div_(self.lengths[:, None])

    def _fit_length(self, x: Vectors) -> None:
        """Shorten the encoder so that vectors are rebuilt at their own length; mixtures of one cloud are much alike."""
        centred, rebuilt = x - self.b_dec, self.decode(self.select(x)) - self.b_dec
        along, norm = (centred * rebuilt).sum(), rebuilt.square().sum()
        self.W_enc_rows.mul_((along / norm).clamp(0, 1) if norm > 0 else 1.0)

    def _first_mixture(self, generator: torch.Generator) -> Float[Tensor, "d_sae n_points"]:
        """Return mixtures of mostly two points, at least half of the one; all come in turn, the other is drawn."""
        n_points, latents = self.config.n_points, torch.arange(self.d_sae, device=generator.device)
        near = torch.randperm(n_points, generator=generator, device=generator.device)[latents % n_points]
        shift = torch.randint(max(n_points - 1, 1), near.shape, generator=generator, device=generator.device) + 1
        share = torch.rand(near.shape, generator=generator, device=generator.device) / 2
        mixture = torch.full((self.d_sae, n_points), BACKGROUND / n_points, device=generator.device)
        mixture[latents, (near + shift) % n_points] += (1 - BACKGROUND) * share
        mixture[latents, near] += (1 - BACKGROUND) * (1 - share)
        return mixture

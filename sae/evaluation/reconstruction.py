"""How well a dictionary rebuilds vectors, and how many latents it takes: from vectors and codes alone."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.dictionaries.codes import Codes
from sae.evaluation.metric import Measured, Metric, Sums, item_metric, register
from sae.tensors import Vectors


@dataclass(frozen=True)
class Reconstruction:
    """A chunk of vectors, what a dictionary made of it, and its codes; a transcoder's vectors are those it writes."""

    x: Vectors
    codes: Codes
    x_hat: Vectors


@torch.no_grad()
def reconstruction(dictionary: Dictionary, x: Vectors, target: Vectors | None = None) -> Reconstruction:
    """Encode and decode a chunk; `target` is what a transcoder should write."""
    codes = dictionary.encode(x)
    return Reconstruction(x if target is None else target, codes, dictionary.output(codes, x))


def _moments(chunk: Reconstruction) -> Sums:
    x, error = chunk.x.double(), chunk.x.double() - chunk.x_hat.double()
    scalars = torch.stack(
        [torch.tensor(float(len(x)), device=x.device).double(), error.square().sum(), x.square().sum()]
    )
    return torch.cat([scalars, x.sum(0)])


def _fvu(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
    n, squared_error, squared_norm, summed = total[..., 0], total[..., 1], total[..., 2], total[..., 3:]
    return squared_error / (squared_norm - summed.square().sum(-1) / n)


@register
class Fvu(Metric):
    """Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean||^2, lower is better.

    The mean is that of the whole evaluation set, per coordinate; both sums run over all of its vectors in float64. It
    is 0 for a perfect reconstruction and exactly 1 for predicting the mean; a constant error counts; it exceeds 1 for
    anything worse than the mean. Undefined (infinite) when all vectors are equal.
    """

    name, better, bounds = "fvu", "lower", (0.0, math.inf)
    sums = staticmethod(_moments)
    value = staticmethod(_fvu)


@register
class ExplainedVariance(Metric):
    """Explained variance: 1 - FVU, higher is better, 1 at most."""

    name, better, bounds = "explained_variance", "higher", (-math.inf, 1.0)
    sums = staticmethod(_moments)

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return 1 - _fvu(total)


@register
class Cosine(Metric):
    """Mean over vectors of cos(x, x_hat), in [-1, 1], higher is better; a zero vector or reconstruction counts 0."""

    name, better, bounds = "cosine", "higher", (-1.0, 1.0)

    @staticmethod
    def sums(chunk: Reconstruction) -> Sums:
        cosine = torch.nn.functional.cosine_similarity(chunk.x.double(), chunk.x_hat.double(), dim=1)
        return torch.stack([torch.ones_like(cosine).sum(), cosine.sum()])

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 1] / total[..., 0]


@register
class NormRatio(Metric):
    """Mean over vectors of ||x_hat|| / ||x||: 1 is no shrinkage; zero vectors are left out."""

    name, better, bounds = "norm_ratio", "neither", (0.0, math.inf)

    @staticmethod
    def sums(chunk: Reconstruction) -> Sums:
        norm, norm_hat = chunk.x.double().norm(dim=1), chunk.x_hat.double().norm(dim=1)
        present = norm > 0
        return torch.stack([present.double().sum(), (norm_hat[present] / norm[present]).sum()])

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 1] / total[..., 0]


@register
class L0(Metric):
    """Mean over vectors of the number of latents whose code is not zero; a count, in [0, d_sae]."""

    name, better, bounds = "l0", "neither", (0.0, math.inf)

    @staticmethod
    def sums(chunk: Reconstruction) -> Sums:
        l0 = chunk.codes.l0().double()
        return torch.stack([torch.ones_like(l0).sum(), l0.sum()])

    @staticmethod
    def value(total: Float[Tensor, "*draws sums"]) -> Float[Tensor, "*draws"]:
        return total[..., 1] / total[..., 0]


DENSE_RATE = 0.1
"""Share of vectors above which a latent counts as dense."""


class FiringRates:
    """Per latent, the share of vectors on which its code is not zero, and its largest value."""

    def __init__(self, d_sae: int) -> None:
        self.n_vectors = 0
        self.counts: Int[Tensor, " d_sae"] = torch.zeros(d_sae, dtype=torch.int64)
        self.maxima: Float[Tensor, " d_sae"] = torch.zeros(d_sae)

    def update(self, codes: Codes) -> None:
        """Add the codes of one chunk."""
        fired = codes.values != 0
        indices, values = codes.indices[fired].long().cpu(), codes.values[fired].float().cpu()
        self.n_vectors += len(codes)
        self.counts += torch.bincount(indices, minlength=len(self.counts))
        self.maxima.scatter_reduce_(0, indices, values, "amax")

    @property
    def rates(self) -> Float[Tensor, " d_sae"]:
        """Firing rate per latent, in [0, 1]."""
        return self.counts.double() / max(self.n_vectors, 1)

    def histogram(self) -> dict[str, list[float]]:
        """Count latents by log10 of their firing rate, in half decades from 1e-7 to 1; the dead are not in it."""
        edges = torch.arange(-14, 1, dtype=torch.float64) / 2
        alive = self.rates[self.counts > 0].log10().clamp(-7, 0)
        counts = torch.histogram(alive, bins=edges)[0]
        return {"log10_rate": edges.tolist(), "latents": counts.tolist()}


@item_metric("firing_rate", better="neither", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def firing_rate(rates: FiringRates) -> Float[Tensor, " d_sae"]:
    """Mean over latents of the share of vectors on which the code is not zero, in [0, 1]: L0 over d_sae."""
    return rates.rates


@item_metric("dead_fraction", better="lower", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def dead_fraction(rates: FiringRates) -> Float[Tensor, " d_sae"]:
    """Share of latents that fire on none of the vectors evaluated, in [0, 1]; lower is better.

    It depends on how many vectors were seen: a rare latent counts as dead on few.
    """
    return (rates.counts == 0).double()


@item_metric("dense_fraction", better="lower", unit="latents", bounds=(0.0, 1.0), chance=None, paired=False)
def dense_fraction(rates: FiringRates) -> Float[Tensor, " d_sae"]:
    """Share of latents that fire on more than a tenth of the vectors, in [0, 1]; lower is better."""
    return (rates.rates > DENSE_RATE).double()


def firing_scores(rates: FiringRates) -> list[Measured]:
    """Return firing rate, dead fraction and dense fraction, one value per latent each."""
    return [firing_rate(rates), dead_fraction(rates), dense_fraction(rates)]

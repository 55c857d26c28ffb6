"""K-means as a dictionary: one latent per cluster, and a vector is rebuilt as the centre of its own.

    j     = argmin_i |x - c_i|^2 = argmax_i (c_i - b_dec) . (x - b_dec) - |c_i - b_dec|^2 / 2
    codes = length_j on j, 0 elsewhere,   length_i = |c_i - b_dec|,   W_dec[i] = (c_i - b_dec) / length_i
    x_hat = codes @ W_dec + b_dec = c_j

Lloyd: Least squares quantization in PCM, 1982. A control: one active latent is the sparsest code there is.

Centres start from vectors drawn at random. Lloyd's iteration is written here since archetypal dictionaries, which are
trained, need it too, on any device and with no other package.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.dictionaries.initialisation import normalise_rows_
from sae.errors import DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

N_ROUNDS = 25
"""Most rounds of Lloyd's iteration; it rarely gains anything after these."""

BLOCK_ROWS = 4096
"""Vectors whose distances to all centres are held at a time."""


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(DictionaryConfig):
    """Settings of k-means: the number of clusters, d_sae."""

    kind: ClassVar[str] = "kmeans"


class KMeans(Dictionary):
    """Has the latent of the nearest centre fire, and rebuilds that centre.

    Attributes:
        lengths: [d_sae]; distance of each centre from b_dec, the code of the latent.
    """

    config_type = KMeansConfig
    fitted = True
    transcodes = False
    lengths: Tensor

    def __init__(self, config: KMeansConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("lengths", torch.zeros(config.d_sae))
        self.requires_grad_(False)

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Take the clusters from a sample; b_dec is its mean.

        Raises:
            DictionaryError: the sample has fewer vectors than there are clusters.
        """
        x = self.normalised(sample)
        self.b_dec.copy_(x.double().mean(0))
        self.variance.copy_((x - self.b_dec).double().square().sum(1).mean())
        from_mean = kmeans_centres(x, self.d_sae, generator) - self.b_dec
        self.lengths.copy_(torch.linalg.vector_norm(from_mean, dim=1))
        self.W_enc_rows.copy_(from_mean)
        self.b_enc.copy_(-self.lengths.square() / 2)
        self.W_dec.copy_(from_mean)
        normalise_rows_(self.W_dec)

    def select(self, x: Vectors) -> Codes:
        nearest = kernels.encode_topk(x, self.centre, self.W_enc_rows, self.b_enc, 1)[1]
        return Codes.from_topk(nearest, self.lengths[nearest], self.d_sae)

    def scale_codes(self, factor: float) -> None:
        super().scale_codes(factor)
        self.lengths.mul_(factor)


def kmeans_centres(x: Vectors, n: int, generator: torch.Generator) -> Float[Tensor, "n d_in"]:
    """Return n cluster centres of the rows of x by Lloyd's iteration, from n rows drawn at random.

    A cluster that has lost all its rows moves to one of the rows furthest from their centres. Stops when no row
    changes its cluster, at the latest after `N_ROUNDS` rounds.

    Raises:
        DictionaryError: there are fewer rows than centres.
    """
    if n > len(x):
        raise DictionaryError(f"k-means: {n} centres of {len(x)} vectors; it needs as many vectors or more.")
    drawn = torch.randperm(len(x), generator=generator, device=generator.device)[:n]
    centres, before = x[drawn.to(x.device)], None
    for _ in range(N_ROUNDS):
        cluster, distance = _assign(x, centres)
        if before is not None and torch.equal(cluster, before):
            break
        before, size = cluster, cluster.bincount(minlength=n)
        centres = torch.zeros_like(centres).index_add_(0, cluster, x) / size.clamp_min(1)[:, None]
        empty = (size == 0).nonzero()[:, 0]
        centres[empty] = x[distance.topk(len(empty)).indices]
    return centres


def _assign(x: Vectors, centres: Float[Tensor, "n d_in"]) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return the nearest centre of every row, and the squared distance to it."""
    half = centres.square().sum(1) / 2
    found = [torch.addmm(-half, rows, centres.T).max(1) for rows in x.split(BLOCK_ROWS)]
    nearness = torch.cat([values for values, _ in found])
    return torch.cat([indices for _, indices in found]), x.square().sum(1) - 2 * nearness

"""Data whose true features are known, so that a metric or a dictionary can be checked with no subject at all.

Every toy draws rows x = f G, with known directions G and sparse non-negative codes f that differ from toy to toy in
how they fire together: independently, under parents, in correlated blocks, or in one modality only. What else metrics
look at is made of such rows: texts, pictures and pairs in `toy_inputs`, subjects in `toy_subjects`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.activations.store import Provenance
from sae.dictionaries.base import Dictionary
from sae.dictionaries.threshold import Thresholded, ThresholdedConfig
from sae.errors import ConfigError
from sae.evaluation.inferred import Inferred
from sae.evaluation.sample import Sample, halves
from sae.tensors import Kind, Vectors

TOY_SEED = 0x7047
"""Keeps true directions apart from those that a dictionary starts from, which are drawn alike with the same small seed:
it would begin with the solution."""


class Drawn(NamedTuple):
    """Rows of a toy, how strongly each feature fired in them, and what else is known of a row, one value each."""

    x: Vectors
    codes: Float[Tensor, "batch truth"]
    factors: dict[str, np.ndarray]

    @property
    def fired(self) -> Bool[Tensor, "batch truth"]:
        """Which features fired."""
        return self.codes > 0

    def where(self, keep: Bool[Tensor, " batch"]) -> "Drawn":
        """Return some of the rows."""
        factors = {name: values[keep.numpy()] for name, values in self.factors.items()}
        return Drawn(self.x[keep], self.codes[keep], factors)


@dataclass(frozen=True)
class Toy:
    """Vectors x = f G with sparse, independent, non-negative codes f and known directions G.

    Attributes:
        directions: unit rows, the true features.
        probabilities: how often each one is active.
        magnitude: smallest active code; the excess over it is exponential with mean `spread`.
        noise: standard deviation of Gaussian noise in every coordinate.
    """

    directions: Float[Tensor, "truth d_in"]
    probabilities: Float[Tensor, " truth"]
    magnitude: float = 0.5
    spread: float = 0.5
    noise: float = 0.0

    @property
    def l0(self) -> float:
        """Mean number of active features."""
        return float(self.probabilities.sum())

    def sample(self, n_vectors: int, generator: torch.Generator) -> tuple[Vectors, Bool[Tensor, "batch truth"]]:
        """Draw vectors, and which features were active in each."""
        drawn = self.draw(n_vectors, generator)
        return drawn.x, drawn.fired

    def draw(self, n_vectors: int, generator: torch.Generator) -> Drawn:
        """Draw vectors with all that is known of them."""
        return self.added_up(self.firing(n_vectors, generator), generator)

    def firing(self, n_vectors: int, generator: torch.Generator) -> Bool[Tensor, "batch truth"]:
        """Draw which features are active in each row."""
        return torch.rand((n_vectors, len(self.directions)), generator=generator) < self.probabilities

    def added_up(self, fired: Bool[Tensor, "batch truth"], generator: torch.Generator) -> Drawn:
        """Draw how strongly the active features fire, and add them up."""
        excess = torch.empty(fired.shape).exponential_(1.0, generator=generator) * self.spread
        codes = fired * (self.magnitude + excess)
        x = codes @ self.directions
        return Drawn(x + self.noise * torch.randn(x.shape, generator=generator), codes, {})

    def possible(self, fired: Bool[Tensor, "batch truth"]) -> Bool[Tensor, " batch"]:
        """Say of each row whether these features can fire together, and no others."""
        return torch.ones(len(fired), dtype=torch.bool)

    @property
    def leaders(self) -> Int[Tensor, " leaders"]:
        """Features of which any one can fire without the others."""
        return torch.arange(len(self.directions))


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Toy):
    """A feature fires only where its parent does, the rest by chance; `probabilities` are those over all rows.

    `parents` holds the number of each feature's parent, which comes before it, or -1 for a root.
    """

    parents: Int[Tensor, " truth"]

    def firing(self, n_vectors: int, generator: torch.Generator) -> Bool[Tensor, "batch truth"]:
        fired = torch.rand((n_vectors, len(self.directions)), generator=generator)
        rooted = self.parents < 0
        given = torch.where(rooted, self.probabilities, self.probabilities / self.probabilities[self.parents])
        fired = fired < given
        for feature in (~rooted).nonzero()[:, 0]:
            fired[:, feature] &= fired[:, self.parents[feature]]
        return fired

    def possible(self, fired: Bool[Tensor, "batch truth"]) -> Bool[Tensor, " batch"]:
        return (~fired | (self.parents < 0) | fired[:, self.parents]).all(1)

    @property
    def leaders(self) -> Int[Tensor, " leaders"]:
        return (self.parents < 0).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class Correlated(Toy):
    """Features of a block fire together more often than by chance: a Gaussian copula.

    A feature fires where a standard normal variable falls below the quantile of its probability; the variables of two
    features have correlation `correlation` within a block and 0 across blocks.
    """

    block: Int[Tensor, " truth"]
    correlation: float

    def firing(self, n_vectors: int, generator: torch.Generator) -> Bool[Tensor, "batch truth"]:
        common = torch.randn((n_vectors, int(self.block.max()) + 1), generator=generator)[:, self.block]
        own = torch.randn((n_vectors, len(self.block)), generator=generator)
        normal = math.sqrt(self.correlation) * common + math.sqrt(1 - self.correlation) * own
        return normal < torch.special.ndtri(self.probabilities)

    @property
    def leaders(self) -> Int[Tensor, " leaders"]:
        """The first feature of every block."""
        return torch.cat([torch.ones(1, dtype=torch.bool), self.block.diff() != 0]).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class TwoModalities(Toy):
    """Rows of two modalities, equally often, each offset by a vector of its own: the modality gap of a joint space.

    `present` says in which modality a feature can fire; `probabilities` are those within such a modality. A factor
    `modality` (0 or 1) comes with every row.
    """

    offsets: Float[Tensor, "2 d_in"]
    present: Bool[Tensor, "2 truth"]

    @property
    def l0(self) -> float:
        """Mean number of active features over rows of both modalities."""
        return float((self.probabilities * self.present).sum() / 2)

    def draw(self, n_vectors: int, generator: torch.Generator) -> Drawn:
        modality = torch.randint(2, (n_vectors,), generator=generator)
        drawn = self.added_up(self.firing(n_vectors, generator) & self.present[modality], generator)
        return drawn._replace(x=drawn.x + self.offsets[modality], factors={"modality": modality.numpy()})

    @property
    def leaders(self) -> Int[Tensor, " leaders"]:
        """All features, those of one modality first."""
        return self.present.all(0).long().argsort(stable=True)


def pentagon(probability: float = 0.05) -> Toy:
    """Five features in two dimensions, in the corners of a regular pentagon.

    The smallest case of superposition that a network was seen to learn (Elhage et al. 2022, Toy Models of
    Superposition, arXiv 2209.10652); features are rare enough that mostly one is active at a time.
    """
    angles = torch.arange(5) * 2 * math.pi / 5
    return Toy(torch.stack([angles.cos(), angles.sin()], 1), torch.full((5,), probability))


def superposition(n_features: int, d_in: int, l0: float, seed: int = 0, exponent: float = 0.7) -> Toy:
    """Random directions whose firing probabilities fall as a power of their rank.

    Probability of feature i is proportional to i^-exponent (Zipf), scaled to sum to `l0` and capped at 0.6.

    Raises:
        ConfigError: more features active than there are.
    """
    probabilities = _zipf(n_features, l0, exponent)
    generator = torch.Generator().manual_seed(TOY_SEED + seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    return Toy(directions, probabilities, noise=0.02)


def orthogonal(n_features: int, d_in: int, l0: float, seed: int = 0, exponent: float = 0.0) -> Toy:
    """Orthogonal directions without noise, which `true_dictionary` takes apart exactly; not along the coordinates.

    Raises:
        ConfigError: more features than dimensions, or more active than there are.
    """
    return Toy(_directions(n_features, d_in, seed, exact=True), _zipf(n_features, l0, exponent))


def hierarchical(
    n_roots: int, branching: int, depth: int, d_in: int, probability: float = 0.2, share: float = 0.3, seed: int = 0
) -> Hierarchical:
    """Trees of features: every root has `branching` children, these as many, down to `depth` levels below the roots.

    A root fires with `probability`, a child in `share` of the rows where its parent fires. Directions are orthogonal
    where there is room.
    """
    parents, level = [-1] * n_roots, list(range(n_roots))
    for _ in range(depth):
        born = [parent for parent in level for _ in range(branching)]
        level = list(range(len(parents), len(parents) + len(born)))
        parents += born
    probabilities = torch.full((len(parents),), probability)
    for child, parent in enumerate(parents):
        if parent >= 0:
            probabilities[child] = probabilities[parent] * share
    return Hierarchical(_directions(len(parents), d_in, seed), probabilities, parents=torch.tensor(parents))


def correlated(
    n_features: int, d_in: int, l0: float, correlation: float = 0.7, block: int = 4, seed: int = 0, exponent: float = 0
) -> Correlated:
    """Blocks of `block` neighbouring features that fire together; directions are orthogonal where there is room.

    Raises:
        ConfigError: the correlation lies outside [0, 1], or more features are active than there are.
    """
    if not 0 <= correlation <= 1:
        raise ConfigError(f"correlated: correlation must lie between 0 and 1, got {correlation}.")
    blocks = torch.arange(n_features) // block
    probabilities = _zipf(n_features, l0, exponent)
    directions = _directions(n_features, d_in, seed)
    return Correlated(directions, probabilities, block=blocks, correlation=correlation)


def two_modality(
    n_shared: int, n_own: int, d_in: int, probability: float = 0.1, gap: float = 2.0, seed: int = 0
) -> TwoModalities:
    """Features that both modalities share, then `n_own` of each modality alone; offsets of length `gap`.

    Directions and offsets are orthogonal where there is room.
    """
    n_features = n_shared + 2 * n_own
    together = _directions(n_features + 2, d_in, seed)
    present = torch.ones(2, n_features, dtype=torch.bool)
    present[1, n_shared : n_shared + n_own] = False
    present[0, n_shared + n_own :] = False
    probabilities = torch.full((n_features,), probability)
    return TwoModalities(together[:-2], probabilities, offsets=gap * together[-2:], present=present)


def toy_sample(toy: Toy, n_vectors: int, seed: int = 0) -> Sample:
    """Draw a sample whose labels `feature_I=on` are the true features themselves; every row is an example."""
    drawn = toy.draw(n_vectors, torch.Generator().manual_seed(seed))
    numbers = torch.arange(n_vectors)
    kind = torch.full((n_vectors,), int(Kind.TOKEN), dtype=torch.uint8)
    labels = feature_labels(drawn.fired)
    return Sample(
        x=drawn.x,
        rows=Provenance(numbers, torch.zeros_like(numbers), kind),
        pooled=False,
        labels=labels,
        factors=labels | drawn.factors,
        label_names=dict.fromkeys(labels, ("on",)),
        match=halves(numbers, seed),
    )


def feature_labels(fired: Bool[Tensor, "items truth"]) -> dict[str, np.ndarray]:
    """Return the true features as families of labels, each with the one value `on`."""
    return {f"feature_{i}": np.where(column.numpy(), 0, -1) for i, column in enumerate(fired.T)}


def true_dictionary(toy: Toy) -> Dictionary:
    """Return the dictionary of a toy's features, latent i for feature i.

    Codes are those that were drawn, up to rounding, where there is no noise: read off linearly where directions and
    offsets are independent, else inferred (see `Inferred`). Of offsets it knows the mean.
    """
    n_features, d_in = toy.directions.shape
    offsets = toy.offsets if isinstance(toy, TwoModalities) else torch.zeros(0, d_in)
    written = torch.cat([toy.directions, offsets])
    if torch.linalg.matrix_rank(written.double()) == len(written):
        dictionary = Thresholded(ThresholdedConfig(d_sae=n_features), d_in)
        dictionary.W_enc_rows.copy_(torch.linalg.pinv(written.double()).T[:n_features])
        dictionary.threshold.fill_(toy.magnitude / 2)
    else:
        dictionary = Inferred(n_features, written, toy.magnitude / 2)
        dictionary.W_enc_rows.copy_(toy.directions)
    dictionary.W_dec.copy_(toy.directions)
    if len(offsets):
        dictionary.b_dec.copy_(offsets.mean(0))
    return dictionary.eval()


def _zipf(n_features: int, l0: float, exponent: float) -> Float[Tensor, " truth"]:
    if not 0 < l0 < n_features:
        raise ConfigError(f"toy: l0 must lie between 0 and n_features = {n_features}, got {l0}.")
    frequencies = torch.arange(1, n_features + 1, dtype=torch.float32) ** -exponent
    return (frequencies / frequencies.sum() * l0).clamp(max=0.6)


def _directions(n: int, d_in: int, seed: int, exact: bool = False) -> Float[Tensor, "n d_in"]:
    """Return unit rows: orthogonal if they fit, else random."""
    if exact and n > d_in:
        raise ConfigError(f"toy: {n} directions cannot be orthogonal in {d_in} dimensions.")
    generator = torch.Generator().manual_seed(TOY_SEED + seed)
    random = torch.randn(n, d_in, generator=generator, dtype=torch.float64)
    if n > d_in:
        return torch.nn.functional.normalize(random, dim=1).float()
    return torch.linalg.qr(random.T).Q.T.contiguous().float()

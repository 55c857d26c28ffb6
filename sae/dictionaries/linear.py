"""Dictionaries that select nothing: every unit answers every vector.

    codes = W_enc.T @ (x - b_dec) + b_enc
    x_hat = codes @ W_dec + b_dec

They are controls, and nothing trains them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.errors import DictionaryError
from sae.tensors import Vectors


class Linear(Dictionary):
    """Base of the dictionaries whose codes are dense; whatever is not zero counts as an entry, negative values too."""

    fitted = True
    transcodes = False

    def __init__(self, config: DictionaryConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.requires_grad_(False)

    def activations(self, x: Vectors, units: Int[Tensor, " chosen"]) -> Float[Tensor, "batch chosen"]:
        """Return the activations of a few units, at the cost of these alone."""
        x = self._checked(x)
        return (x - self.b_dec) @ self.W_enc_rows[units].T + self.b_enc[units]

    def select(self, x: Vectors) -> Codes:
        return Codes.from_dense(self.activations(x, torch.arange(self.d_sae, device=self.W_dec.device)))

    def decode(self, codes: Codes) -> Vectors:
        return codes.dense() @ self.W_dec + self.b_dec

    def after_step(self) -> None:
        """Do nothing: there is nothing to renormalise."""

    def _check_width(self, wanted: int, d_in: int) -> None:
        if self.config.d_sae != wanted:
            raise DictionaryError(
                f"{self.config.kind}: d_sae is {self.config.d_sae}; for vectors of width {d_in} it must be {wanted}."
            )


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(DictionaryConfig):
    """Settings of the identity; d_sae equals the width of the vectors."""

    kind: ClassVar[str] = "identity"


class Identity(Linear):
    """The raw neurons: one unit per coordinate, codes = x.

    The control that any dictionary has to beat in interpretability.
    """

    config_type = IdentityConfig

    def __init__(self, config: IdentityConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self._check_width(d_in, d_in)
        self.W_enc_rows.copy_(torch.eye(d_in))
        self.W_dec.copy_(torch.eye(d_in))

    def activations(self, x: Vectors, units: Int[Tensor, " chosen"]) -> Float[Tensor, "batch chosen"]:
        """Return coordinates, without a matrix product."""
        return self._checked(x)[:, units]

    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Do nothing: coordinates need no data."""


@dataclass(frozen=True, kw_only=True)
class PcaConfig(DictionaryConfig):
    """Settings of principal components; d_sae is twice the width of the vectors."""

    kind: ClassVar[str] = "pca"


class Pca(Linear):
    """Principal components as units, each with both signs, for a unit is read from its large values.

    Unit i is the deviation from the mean along component i, unit i + d_in its negative; components are sorted by
    variance. The decoder halves them, so that the two together rebuild x exactly.
    """

    config_type = PcaConfig

    def __init__(self, config: PcaConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self._check_width(2 * d_in, d_in)

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Take mean and components from a sample of vectors."""
        x = self._checked(sample).double()
        mean = x.mean(0)
        components = torch.linalg.eigh((x - mean).T @ (x - mean)).eigenvectors.flip(1).T
        both = torch.cat([components, -components])
        self.b_dec.copy_(mean)
        self.W_enc_rows.copy_(both)
        self.W_dec.copy_(both / 2)


@dataclass(frozen=True, kw_only=True)
class ConstantConfig(DictionaryConfig):
    """Settings of constant answers: how many units give them."""

    kind: ClassVar[str] = "constant"


class Constant(Linear):
    """Units that answer one, whatever they are shown; the reconstruction is the mean.

    The control that must sit at chance on every score.
    """

    config_type = ConstantConfig

    def __init__(self, config: ConstantConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.b_enc.fill_(1)

    def activations(self, x: Vectors, units: Int[Tensor, " chosen"]) -> Float[Tensor, "batch chosen"]:
        """Return the biases, without a matrix product."""
        return self.b_enc[units].expand(len(self._checked(x)), -1)

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Take the mean from a sample of vectors."""
        self.b_dec.copy_(self._checked(sample).double().mean(0))


@dataclass(frozen=True, kw_only=True)
class DirectionsConfig(DictionaryConfig):
    """Settings of given directions; d_sae is their number."""

    kind: ClassVar[str] = "directions"


class Directions(Linear):
    """Given directions as units: how far a vector lies along each of them, from a point.

    Made for looking at them, by `of`; nothing draws, trains or saves it.
    """

    config_type = DirectionsConfig

    @classmethod
    def of(cls, directions: Float[Tensor, "n d_in"], centre: Float[Tensor, " d_in"]) -> "Directions":
        """Return the units of directions, each brought to length 1.

        Args:
            directions: none of them zero.
            centre: the vector on which all of them answer 0.
        """
        made = cls(DirectionsConfig(d_sae=len(directions)), directions.shape[1])
        unit = torch.nn.functional.normalize(directions.float(), dim=1)
        made.W_enc_rows.copy_(unit)
        made.W_dec.copy_(unit)
        made.b_dec.copy_(centre)
        return made

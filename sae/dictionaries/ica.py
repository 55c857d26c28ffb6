"""Independent components as units, each with both signs.

    codes = S @ (x - b_dec),   x_hat = codes @ W_dec + b_dec,   W_dec = pinv(S).T / 2 for a unit and its negative

Hyvärinen, Oja: Independent component analysis: algorithms and applications, 2000 (FastICA), as in scikit-learn.

Components are directions along which the data are least like a Gaussian. They have neither sign nor scale of their
own: a unit and its negative stand for either sign, as in principal components, since a unit is read from its large
values; and each is scaled so that it is the deviation from the mean along the direction that it writes.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sae.dictionaries.base import DictionaryConfig
from sae.dictionaries.initialisation import normalise_rows_
from sae.dictionaries.linear import Linear
from sae.errors import ConfigError, DictionaryError
from sae.tensors import Vectors

logger = logging.getLogger(__name__)

N_ROUNDS = 200
"""Most rounds of FastICA."""


@dataclass(frozen=True, kw_only=True)
class IcaConfig(DictionaryConfig):
    """Settings of independent components; d_sae is twice their number, which is at most the width of the vectors."""

    kind: ClassVar[str] = "ica"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_sae % 2:
            raise ConfigError(f"d_sae: {self.d_sae}; ica has two units per component, so it must be even.")


class Ica(Linear):
    """Independent components by FastICA, each with both signs; needs scikit-learn to be fitted, not to be used."""

    config_type = IcaConfig
    transcodes = False

    def __init__(self, config: IcaConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        if config.d_sae > 2 * d_in:
            raise DictionaryError(f"ica: d_sae is {config.d_sae}; for vectors of width {d_in} at most {2 * d_in}.")

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator, target: Tensor | None = None) -> None:
        """Find the components of a sample of vectors.

        Raises:
            DictionaryError: scikit-learn is not installed, or the sample has fewer vectors than components.
        """
        try:
            from sklearn.decomposition import FastICA
            from sklearn.exceptions import ConvergenceWarning
        except ImportError as error:
            raise DictionaryError(
                "ica: needs the package scikit-learn: pip install 'sae-dictionaries[explore]'."
            ) from error
        x, n = self.normalised(sample).double(), self.d_sae // 2
        if len(x) < n:
            raise DictionaryError(f"ica: {n} components of {len(x)} vectors; it needs as many vectors or more.")
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        ica = FastICA(n, whiten="unit-variance", max_iter=N_ROUNDS, random_state=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            ica.fit(x.numpy(force=True))
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            logger.warning(
                "ica: FastICA has not converged after %d rounds; its components are used as they are.", N_ROUNDS
            )
        written = torch.as_tensor(ica.mixing_).T.to(self.W_dec)
        lengths = torch.linalg.vector_norm(written, dim=1, keepdim=True)
        read = torch.as_tensor(ica.components_).to(self.W_dec) * lengths
        normalise_rows_(written)
        self.b_dec.copy_(x.mean(0))
        self.W_enc_rows.copy_(torch.cat([read, -read]))
        self.W_dec.copy_(torch.cat([written, -written]) / 2)

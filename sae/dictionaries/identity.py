"""The raw neurons as a dictionary: codes = x, x_hat = x.

The control that any dictionary has to beat in interpretability: its latents are the coordinates of the hookpoint
themselves. Nothing is trained.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.errors import DictionaryError
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class IdentityConfig(DictionaryConfig):
    """Settings of the identity; d_sae equals the width of the vectors."""

    kind: ClassVar[str] = "identity"


class Identity(Dictionary):
    """One latent per coordinate; whatever is not zero fires, negative values too."""

    config_type = IdentityConfig

    def __init__(self, config: IdentityConfig, d_in: int) -> None:
        super().__init__(config, d_in)
        if config.d_sae != d_in:
            raise DictionaryError(f"identity: d_sae is {config.d_sae}; it must equal d_in, which is {d_in}.")
        self.requires_grad_(False)
        self.W_enc_rows.copy_(torch.eye(d_in))
        self.W_dec.copy_(torch.eye(d_in))

    def encode(self, x: Vectors) -> Codes:
        return Codes.from_dense(self._checked(x))

    def decode(self, codes: Codes) -> Vectors:
        return codes.dense()

    def initialise(self, sample: Vectors, generator: torch.Generator) -> None:
        """Do nothing: coordinates need no data."""

    def after_step(self) -> None:
        """Do nothing: there is nothing to renormalise."""

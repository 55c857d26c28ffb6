"""One threshold per latent: what a dictionary becomes whose latents fire without looking at one another.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = pre where pre > threshold, 0 elsewhere

Nothing here is trained. Two controls are built of it, neurons and random directions that fire as often as the latents
of a dictionary do: what is rare looks specific, so a comparison is fair only at equal firing rates.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae.dictionaries.base import Dictionary, DictionaryConfig
from sae.dictionaries.codes import Codes
from sae.errors import DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

UNIT_BLOCK = 256
"""Units whose activations on the whole sample are held at a time."""


@dataclass(frozen=True, kw_only=True)
class ThresholdedConfig(DictionaryConfig):
    """Settings of thresholded units; the thresholds themselves are a tensor."""

    kind: ClassVar[str] = "thresholded"


class Thresholded(Dictionary):
    """Keeps every pre-activation that is above its latent's threshold.

    Attributes:
        threshold: [d_sae]; in the units of the pre-activations, infinite for a latent that never fires.
    """

    config_type = ThresholdedConfig
    threshold: Tensor

    def __init__(self, config: ThresholdedConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("threshold", torch.zeros(config.d_sae))
        self.requires_grad_(False)

    @classmethod
    def neurons(cls, x: Vectors, rates: Float[Tensor, " latents"]) -> Self:
        """Return the raw neurons, with the firing rates of latents, however many these are.

        The neurons get rates at evenly spaced quantiles of `rates`, so both have the same distribution of rates, the
        share of dead ones included, and l0 is the latents' times d_in / d_sae. The neuron that is most often above
        zero gets the largest rate, and so on.
        """
        d_in = x.shape[1]
        neurons = cls(ThresholdedConfig(d_sae=d_in), d_in)
        neurons.W_enc_rows.copy_(torch.eye(d_in))
        neurons.W_dec.copy_(torch.eye(d_in))
        quantiles = (torch.arange(d_in, dtype=torch.float64) + 0.5) / d_in
        ranks = (x > 0).sum(0).argsort(stable=True).argsort()
        neurons.set_rates(x, torch.quantile(rates.double(), quantiles)[ranks])
        return neurons

    @classmethod
    def random_directions(cls, x: Vectors, rates: Float[Tensor, " latents"], generator: torch.Generator) -> Self:
        """Return as many directions as there are rates, uniform on the sphere around the data's geometric median."""
        directions = cls(ThresholdedConfig(d_sae=len(rates)), x.shape[1])
        directions.initialise(x, generator)
        directions.set_rates(x, rates)
        return directions

    @torch.no_grad()
    def set_rates(self, x: Vectors, rates: Float[Tensor, " d_sae"]) -> None:
        """Set thresholds at which unit i fires on the share `rates[i]` of the rows of x.

        A rate of zero gives an infinite threshold, any other at least one row. Thresholds lie midway between two
        pre-activations; where that is below zero, `b_enc` lifts the unit, so that firing always means a positive
        code. Rows of equal pre-activation (the zeros of a ReLU) cannot be told apart: then fewer rows fire.

        Raises:
            DictionaryError: no more than one row, or a number of rates other than d_sae.
        """
        x, n_rows = self._checked(x), len(x)
        if n_rows < 2 or len(rates) != self.d_sae:
            raise DictionaryError(f"{self!r}: cannot set thresholds from {n_rows} rows and {len(rates)} firing rates.")
        n_fired = (rates.double() * n_rows).round().long().clamp(1, n_rows - 1)
        self.threshold.fill_(torch.inf)
        # Units of similar rates share a block, so that hardly any needs more than its own largest values.
        order = n_fired.argsort(stable=True)
        order = order[rates[order] > 0]
        for units in order.split(UNIT_BLOCK) if len(order) else ():
            wanted = n_fired[units][:, None]
            top = self._pre(x, units).T.contiguous().topk(int(wanted.max()) + 1, dim=1).values
            between = (top.gather(1, wanted - 1) + top.gather(1, wanted))[:, 0] / 2
            self.b_enc[units] += (-between).clamp_min(0)
            self.threshold[units] = between.clamp_min(0)

    def select(self, x: Vectors) -> Codes:
        return Codes(*kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, self.threshold), self.d_sae)

    @torch.no_grad()
    def scale_codes(self, factor: float) -> None:
        super().scale_codes(factor)
        self.threshold.mul_(factor)

    def _pre(self, x: Vectors, units: Int[Tensor, " chosen"]) -> Float[Tensor, "batch chosen"]:
        return torch.addmm(self.b_enc[units], x - self.b_dec, self.W_enc_rows[units].T)

"""BatchTopK: the k * batch largest pre-activations of a whole batch; vectors may use more or fewer latents.

    pre   = W_enc.T @ (x - b_dec) + b_enc
    codes = pre where it is positive and among the k * batch largest of the batch          in training
    codes = pre where pre > threshold                                                      in use
    x_hat = codes @ W_dec + b_dec
    loss  = mean |x - x_hat|^2 / Var(x) + auxk_coefficient * auxk                          see auxk.py

Bussmann, Leask, Nanda: BatchTopK sparse autoencoders, 2024, arXiv 2412.06410.

In use the code of a vector must not depend on its batch, so a threshold takes the place of the ranking. While training
it follows the smallest selected value (an exponential mean, started at the first batch's); at the end `calibrate` sets
it to the value at which held-out vectors have k active latents on average. The paper takes the mean of the batches'
smallest values, which is biased: a batch cut at exactly k * batch is not a threshold that gives k on other vectors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae.dictionaries.auxk import WithAuxK
from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.topk import TopKConfig
from sae.errors import DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

THRESHOLD_RATE = 0.02
"""How fast the threshold follows the batches' smallest selected values."""

FLOOR = 0.85
"""Share of the threshold above which the search for the largest pre-activations starts; decides speed alone."""


@dataclass(frozen=True, kw_only=True)
class BatchTopKConfig(TopKConfig):
    """Settings of BatchTopK: those of TopK; k is the mean per vector."""

    kind: ClassVar[str] = "batch_topk"


class BatchTopK(WithAuxK):
    """Keeps the largest pre-activations of a batch, and in use those above a threshold.

    Attributes:
        threshold: [d_sae]; the same for all latents.
    """

    config_type = BatchTopKConfig
    config: BatchTopKConfig
    threshold: Tensor

    def __init__(self, config: BatchTopKConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__(config, d_in, d_out)
        self.register_buffer("threshold", torch.zeros(config.d_sae))

    def select(self, x: Vectors) -> Codes:
        return Codes(*kernels.encode_above(x, self.centre, self.W_enc_rows, self.b_enc, self.threshold), self.d_sae)

    def select_batch(self, x: Vectors) -> Codes:
        """Return the codes of a batch in training, and let the threshold follow."""
        n, floor = self.config.k * len(x), FLOOR * self.threshold[0]
        offsets, indices, values = kernels.encode_batch_topk(x, self.centre, self.W_enc_rows, self.b_enc, n, floor)
        codes = Codes(offsets, indices, values.relu(), self.d_sae)
        with torch.no_grad():
            smallest = values.amin() if len(values) else values.new_zeros(())
            rate = torch.where(self.threshold[0] > 0, THRESHOLD_RATE, 1.0)
            self.threshold.lerp_(smallest.clamp_min(0).expand_as(self.threshold), rate)
        return codes

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error and auxiliary loss."""
        codes = self.select_batch(x)
        x_hat = self.reconstruct(codes, x)
        terms = {"mse": (1.0, self.normalised_error(target, x_hat))}
        return self.summed(codes, x_hat, target, terms | {"auxk": self.auxiliary_term(x, target, x_hat, dead)})

    @torch.no_grad()
    def calibrate(self, chunks: Iterable[Vectors]) -> dict[str, float]:
        """Set the threshold at which vectors have k active latents on average.

        Each chunk's own threshold is found exactly; the threshold is their mean, as each is the same quantile of a
        sample of equal size, and their spread gives its standard error. L0 and its error are then counted.

        Args:
            chunks: held-out vectors as the dictionary was trained on; of about equal size, two or more.

        Returns:
            threshold, its standard error, and the mean L0 of these vectors with its standard error over chunks.

        Raises:
            DictionaryError: fewer than two chunks.
        """
        chunks = [self.normalised(chunk) for chunk in chunks]
        if len(chunks) < 2:
            raise DictionaryError(
                f"{self!r}: {len(chunks)} chunks of vectors; a threshold and its error need 2 or more."
            )
        cuts = torch.stack([self._cut(chunk) for chunk in chunks]).double()
        self.threshold.fill_(float(cuts.mean()))
        l0 = torch.stack([self.select(chunk).l0().double().mean() for chunk in chunks])
        root = len(chunks) ** 0.5
        return {
            "threshold": float(cuts.mean()),
            "threshold_error": float(cuts.std() / root),
            "l0": float(l0.mean()),
            "l0_error": float(l0.std() / root),
        }

    def scale_codes(self, factor: float) -> None:
        super().scale_codes(factor)
        self.threshold.mul_(factor)

    def _cut(self, x: Vectors) -> Float[Tensor, ""]:
        """Return the value midway between the last pre-activation that is kept and the first that is not."""
        n, floor = self.config.k * len(x), FLOOR * self.threshold[0]
        weights = (x, self.centre, self.W_enc_rows, self.b_enc)
        kept = kernels.encode_batch_topk(*weights, n + 1, floor)[2]
        if len(kept) <= n:  # fewer are positive than wanted, so every positive one counts
            return kept.new_zeros(())
        return kept.topk(2, largest=False).values.mean()

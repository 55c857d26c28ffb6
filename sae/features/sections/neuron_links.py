"""The raw neurons behind a latent: those it reads, those it writes, and those it goes with."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sae.dictionaries.base import Dictionary
from sae.evaluation.products import moments
from sae.evaluation.responses import Responses
from sae.features.cards import rounded
from sae.features.rounding import pairs

_ROWS_AT_ONCE = 1 << 14


class NeuronLinks:
    """The section "neurons".

    `reads` are the coordinates with the largest weights in the latent's column of W_enc, each as its share of the sum
    of their absolute values, with its sign; `writes` those of its row of W_dec over the row's norm, so that squares sum
    to 1; `share` is the largest of these squares: 1 for a latent that is a neuron, 1 / d for one spread over all.
    `correlated` are the coordinates of what is read whose Pearson correlation with the latent's activation is largest
    in size, with its sign.

    Args:
        dictionary: whose latents.
        responses: of the latents on a sample of rows, nothing pooled; leaves `correlated` out if not given.
        x: these rows.
        n: how many neurons to name.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        responses: Responses | None = None,
        x: Shaped[Tensor, "rows d_in"] | None = None,
        n: int = 8,
    ) -> None:
        self.n, self._responses = n, responses
        self._reads, self._writes = dictionary.W_enc_rows.detach().cpu(), dictionary.W_dec.detach().cpu()
        if responses is not None:
            assert x is not None and len(x) == responses.n_items, "the rows must be those of the responses"
            mean = x.double().mean(0) if len(x) <= _ROWS_AT_ONCE else _mean(x)
            self._x = x.float() - mean.float()
            self._deviation = self._x.square().mean(0).sqrt()

    def of(self, latents: range) -> list[dict[str, Any] | None]:
        """Return the section of each latent; None for those that neither read nor write."""
        rows = slice(latents.start, latents.stop)
        reads, writes = self._reads[rows].float(), self._writes[rows].float()
        sections = [
            {"reads": of_reads, "writes": of_writes, "share": rounded(share)}
            for of_reads, of_writes, share in zip(
                self._largest(reads / _positive(reads.abs().sum(1))),
                self._largest(writes / _positive(writes.norm(dim=1))),
                (writes.square().amax(1) / _positive(writes.square().sum(1))[:, 0]).tolist(),
                strict=True,
            )
        ]
        if self._responses is not None:
            for section, found in zip(sections, self._largest(self._correlations(latents)), strict=True):
                if found:
                    section["correlated"] = found
        some = reads.any(1) | writes.any(1)
        return [section if any_ else None for section, any_ in zip(sections, some.tolist(), strict=True)]

    def _correlations(self, latents: range) -> Float[Tensor, "block d_in"]:
        """Return Pearson's coefficient with every coordinate, 0 where either never varies."""
        assert self._responses is not None
        block, n = self._responses.of_units(latents), self._responses.n_items
        sums, squares = (moment / n for moment in moments(block))
        deviation = (squares - sums.square()).clamp(min=0).sqrt().float()
        covariance = block.total(self._x).float() / n
        spread = deviation[:, None] * self._deviation
        return torch.where(spread > 0, covariance / spread, 0.0)

    def _largest(self, values: Float[Tensor, "block d"]) -> list[list[list[Any]]]:
        """Return the entries that are largest in size, with their place; zeros are left out."""
        where = values.abs().topk(min(self.n, values.shape[1])).indices
        found = zip(where.tolist(), values.gather(1, where).tolist(), strict=True)
        return [[pair for pair in pairs(numbers, row) if pair[1]] for numbers, row in found]


def _positive(values: Float[Tensor, " block"]) -> Float[Tensor, "block 1"]:
    return values[:, None].clamp(min=torch.finfo(torch.float32).tiny)


def _mean(x: Shaped[Tensor, "rows d_in"]) -> Float[Tensor, " d_in"]:
    return torch.stack([part.double().sum(0) for part in x.split(_ROWS_AT_ONCE)]).sum(0) / len(x)

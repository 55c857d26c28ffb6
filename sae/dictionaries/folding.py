"""Normalisation folded into the weights: from a dictionary of normalised vectors to one of vectors as they are.

Behind z = (x - mean) @ M on the input side and y = z_out @ M_out^-1 + mean_out on the output side, with u = the length
of one normalised unit of the outputs (`Affine.unit`):

    W_enc <- u M W_enc        W_dec <- W_dec M_out^-1 / u        b_dec <- b_dec M_out^-1 + mean_out
    biases, thresholds <- u times

and for transcoders, which do not centre their inputs on b_dec:

    b_enc <- b_enc - mean W_enc        W_skip <- M W_skip M_out^-1        b_dec <- b_dec - mean W_skip

Exact for every architecture that sees its inputs through pre-activations alone.
"""

import copy
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.dictionaries.affine import Affine, Matrix, times, transposed
from sae.errors import DictionaryError

_ROWS = 4096
"""Rows converted to float64 at a time."""


class Foldable(nn.Module):
    """The part of a `Dictionary` that folds; what an architecture adds to its encoder it scales and shifts itself."""

    config: Any
    is_transcoder: bool
    W_enc_rows: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    W_skip: nn.Parameter | None
    variance: Tensor

    @torch.no_grad()
    def fold(self, inputs: Affine, outputs: Affine | None = None) -> Self:
        """Return the dictionary for vectors as they are, given that this one was trained behind affine maps.

        `folded(x)` = `outputs.undo(trained(inputs(x)))`, and `folded.encode(x)` has the latents of
        `trained.encode(inputs(x))` with values times `outputs.unit`, so that codes come out in the units of what is
        written. Behind a single factor decoder rows keep norm 1. Behind any other map they keep the norms that come
        out, about 1 on average: a factor per latent would change which latents are the largest.

        Args:
            inputs: the map of what is read.
            outputs: the map of a transcoder's targets; for all others that of what is read.

        Raises:
            DictionaryError: the maps do not fit, or the architecture does not fold behind them.
        """
        self._check_maps(inputs, outputs)
        folded, device = copy.deepcopy(self), self.W_dec.device
        if self.config.layer_norm:
            return folded  # every vector is brought to the same scale in any case
        inputs = inputs.to(device, torch.float64)
        outputs = inputs if outputs is None else outputs.to(device, torch.float64)
        unit = outputs.unit
        folded.scale_codes(unit)
        folded.fold_encoder(inputs, unit)
        multiply(folded.W_dec, outputs.inverse / unit)
        b_dec = outputs.undo(self.b_dec.double()[None])[0]
        if folded.W_skip is not None:
            skip = times(times(folded.W_skip.double().T, transposed(inputs.matrix)).T, outputs.inverse)
            folded.W_skip.copy_(skip)
            b_dec = b_dec - inputs.mean @ skip
        folded.b_dec.copy_(b_dec)
        folded.variance.mul_(unit**2)
        return folded

    def fold_scale(self, scale: float, out_scale: float | None = None) -> Self:
        """Return the dictionary for unscaled vectors, given that this one was trained on x * scale: see `fold`.

        Raises:
            DictionaryError: a scale is not a positive finite number.
        """
        out_scale = scale if out_scale is None else out_scale
        for number in (scale, out_scale):
            if not 0 < number < float("inf"):
                raise DictionaryError(
                    f"{self.config.kind}: cannot fold the scale {number}; it must be positive and finite."
                )
        outputs = Affine.scaling(out_scale, self.b_dec.shape[0]) if self.is_transcoder else None
        return self.fold(Affine.scaling(scale, self.d_in), outputs)

    @property
    def d_in(self) -> int:
        """Width of the vectors that are read."""
        return self.W_enc_rows.shape[1]

    @property
    def d_out(self) -> int:
        """Width of the vectors that are written."""
        return self.W_dec.shape[1]

    @torch.no_grad()
    def scale_codes(self, factor: float) -> None:
        """Multiply whatever is added to pre-activations, or compared with them, when these are multiplied."""
        self.b_enc.mul_(factor)

    @torch.no_grad()
    def shift_codes(self, shift: Float[Tensor, " d_sae"]) -> None:
        """Add to the pre-activations."""
        self.b_enc.add_(shift.to(self.b_enc))

    @torch.no_grad()
    def fold_encoder(self, inputs: Affine, unit: float) -> None:
        """Let the encoder read vectors before `inputs` and give pre-activations times `unit`."""
        multiply(self.W_enc_rows, transposed(inputs.matrix) * unit)
        if self.is_transcoder:
            self.shift_codes(-(self.W_enc_rows.double() @ inputs.mean))

    def _check_maps(self, inputs: Affine, outputs: Affine | None) -> None:
        widths = (inputs.width, self.d_out if outputs is None else outputs.width)
        if widths != (self.d_in, self.d_out) or (outputs is not None) != self.is_transcoder:
            found = f"{inputs.width}" + ("" if outputs is None else f" and {outputs.width}")
            raise DictionaryError(
                f"{self!r}: cannot fold maps of width {found}; a map of the targets is for transcoders alone."
            )
        if self.config.layer_norm and (not inputs.is_uniform or bool(inputs.mean.any())):
            raise DictionaryError(f"{self!r}: layer_norm acts on every vector apart; only a factor folds behind it.")


def multiply(rows: Float[Tensor, "n d"], matrix: Matrix) -> None:
    """Multiply rows from the right, in place and in float64."""
    for part in rows.split(_ROWS):
        part.copy_(times(part.double(), matrix))

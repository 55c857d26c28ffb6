"""Cross-layer transcoder: latents of layer l read site l alone and write to the outputs of layer l and all later ones.

    pre_l   = W_enc_l.T @ x_l + b_enc_l                                     x = x_1 .. x_L side by side
    codes_l = relu(pre_l) on the k latents of layer l with the largest pre, 0 elsewhere
    y_hat_m = sum over l <= m of codes_l @ W_dec_l,m + b_dec_m              y = y_1 .. y_L side by side
    loss    = mean |y - y_hat|^2 / Var(y) + auxk_coefficient * auxk         see auxk.py

Ameisen, Lindsey, Pearce et al.: Circuit tracing: revealing computational graphs in language models, 2025. Inputs are
what the MLPs are given (`mlp.hook_in`) and targets what they add (`hook_mlp_out`), listed from the first layer to the
last. Without targets the sites are rebuilt themselves, from latents of their own and of earlier layers: the causal
crosscoder of Lindsey et al. 2024, for which inputs are centred on b_dec.

`W_enc_rows` [d_sae width] holds for each latent only the site that it reads, so the encoder costs what L transcoders
cost. `W_dec` [d_sae L*width] is whole, with zeros where a latent would write backwards: they are half of it, are kept
zero by their gradient, and let codes, kernels and files be those of every other dictionary.

What differs from the paper: TopK within each layer in place of JumpReLU with a tanh penalty, and rows of the decoder
have norm 1 over all layers that they write to.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sae.dictionaries.affine import Affine, transposed
from sae.dictionaries.auxk import WithAuxK
from sae.dictionaries.base import Loss
from sae.dictionaries.codes import Codes
from sae.dictionaries.folding import multiply
from sae.dictionaries.initialisation import geometric_median, normalise_rows_, random_unit_rows
from sae.dictionaries.topk import TopKConfig
from sae.errors import ConfigError, DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class CltConfig(TopKConfig):
    """Settings of cross-layer transcoders: those of TopK; k is per layer, d_sae and k_aux over all layers together."""

    kind: ClassVar[str] = "clt"

    n_layers: int | None = None
    """Layers, each with as many latents; by default one per hookpoint that is read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        n_layers = 1 if self.n_layers is None else self.n_layers
        if n_layers < 1 or self.d_sae % n_layers or self.k > self.d_sae // n_layers:
            raise ConfigError(
                f"n_layers {n_layers}: must divide d_sae {self.d_sae} into layers of at least k {self.k} latents."
            )
        if self.skip:
            raise ConfigError("skip: clt has no linear path; it would lead from later layers to earlier ones.")

    def for_sites(self, inputs: Sequence[int], targets: Sequence[int]) -> Self:
        written = targets or inputs
        if len(inputs) != len(written) or len({*inputs}) > 1 or len({*written}) > 1:
            raise ConfigError(
                f"clt: reads sites of width {list(inputs)} and writes {list(written)}; needed are as many of each, one "
                "of either per layer, of equal width."
            )
        if self.n_layers not in (None, len(inputs)):
            raise ConfigError(f"n_layers {self.n_layers}: {len(inputs)} hookpoints are read, one per layer.")
        return dataclasses.replace(self, n_layers=len(inputs))


class Clt(WithAuxK):
    """Keeps the k largest pre-activations of every layer, each of which writes to its own layer and all later ones."""

    config_type = CltConfig
    config: CltConfig

    def __init__(self, config: CltConfig, d_in: int, d_out: int | None = None) -> None:
        n_layers = config.n_layers or 1
        if d_in % n_layers or (d_out or d_in) % n_layers:
            raise DictionaryError(f"clt: d_in is {d_in}, d_out {d_out}; both must be multiples of n_layers {n_layers}.")
        super().__init__(config, d_in, d_out)
        self.n_layers = n_layers
        self.W_enc_rows = nn.Parameter(torch.zeros(config.d_sae, d_in // self.n_layers))

    @property
    def d_in(self) -> int:
        """Width of the vectors that are read, over all layers."""
        return self.n_layers * self.W_enc_rows.shape[1]

    def layers(self) -> Iterator[tuple[slice, slice, slice]]:
        """Yield for each layer its latents, the columns of what they read, and the columns that lie before theirs."""
        n, width, written = self.d_sae // self.n_layers, self.d_in // self.n_layers, self.d_out // self.n_layers
        for i in range(self.n_layers):
            yield slice(i * n, (i + 1) * n), slice(i * width, (i + 1) * width), slice(0, i * written)

    def ranked(self, x: Vectors, dead: Bool[Tensor, " d_sae"] | None = None, k_aux: int = 0) -> tuple[Codes, Codes]:
        """Return the largest latents of every layer, and the largest `k_aux` of each among the dead ones."""
        kept, revived, k = [], [], self.config.k
        # Unbound rather than sliced: the gradients of slices would each be as large as the whole.
        weights = self.W_enc_rows.unflatten(0, (self.n_layers, -1)).unbind()
        biases = self.b_enc.unflatten(0, (self.n_layers, -1)).unbind()
        centre = self.centre
        for (latents, read, _), weight, bias in zip(self.layers(), weights, biases, strict=True):
            candidates = None if dead is None else dead[latents]
            values, found = kernels.encode_topk(x[:, read], centre[read], weight, bias, k, candidates, k_aux)
            indices = found + latents.start
            kept.append((indices[:, :k], values[:, :k]))
            revived.append((indices[:, k:], values[:, k:]))
        return self._codes(kept), self._codes(revived)

    def select(self, x: Vectors) -> Codes:
        return self.ranked(x)[0]

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return squared error and auxiliary loss; the dead latents' pre-activations come out of the same products."""
        candidates = self.config.candidates(dead)
        k_aux = max(self.config.n_revived(self.d_out) // self.n_layers, 1)
        codes, revived = self.ranked(x, candidates, k_aux)
        x_hat = self.reconstruct(codes, x)
        auxk = self.auxiliary_error((target - x_hat).detach(), revived, dead)
        terms = {"mse": (1.0, self.normalised_error(target, x_hat)), "auxk": (self.config.auxk_coefficient, auxk)}
        return self.summed(codes, x_hat, target, terms)

    @torch.no_grad()
    def draw_directions(self, sample: Vectors, generator: torch.Generator) -> None:
        """Draw decoder rows that write forward; encoder rows of a crosscoder read what they write to their own site."""
        self.W_dec.copy_(random_unit_rows(self.d_sae, self.d_out, generator))
        self._write_forward(self.W_dec)
        normalise_rows_(self.W_dec)
        if self.is_transcoder:
            self.W_enc_rows.copy_(random_unit_rows(self.d_sae, self.W_enc_rows.shape[1], generator))
            median = geometric_median(sample).to(self.b_enc.dtype)
            for latents, read, _ in self.layers():
                self.b_enc[latents] = -(self.W_enc_rows[latents] @ median[read])
        else:
            for latents, read, _ in self.layers():
                self.W_enc_rows[latents] = self.W_dec[latents, read]
            normalise_rows_(self.W_enc_rows)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Take out of the decoder's gradient what would write backwards, then what would change lengths alone."""
        if self.W_dec.grad is not None:
            self._write_forward(self.W_dec.grad)
        super().after_backward()

    @torch.no_grad()
    def fold_encoder(self, inputs: Affine, unit: float) -> None:
        for latents, read, _ in self.layers():
            part = inputs.part(read)
            multiply(self.W_enc_rows[latents], transposed(part.matrix) * unit)
            if self.is_transcoder:
                shift = self.b_enc.new_zeros(self.d_sae)
                shift[latents] = -(self.W_enc_rows[latents].double() @ part.mean).to(shift)
                self.shift_codes(shift)

    def _check_maps(self, inputs: Affine, outputs: Affine | None) -> None:
        super()._check_maps(inputs, outputs)
        for mapping in (inputs, outputs):
            if mapping is not None and not mapping.keeps_apart(self.n_layers):
                raise DictionaryError(f"{self!r}: folds behind a map of each layer by itself, not one that mixes them.")

    def _write_forward(self, rows: Float[Tensor, "d_sae d_out"]) -> None:
        """Set to zero what latents would write to layers before their own."""
        for latents, _, before in self.layers():
            rows[latents, before] = 0

    def _codes(self, layers: list[tuple[Int[Tensor, "batch _"], Float[Tensor, "batch _"]]]) -> Codes:
        indices, values = (torch.cat(parts, dim=1) for parts in zip(*layers, strict=True))
        return Codes.from_topk(indices, values.relu(), self.d_sae)

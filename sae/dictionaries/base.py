"""What every dictionary is: a config, four tensors, encode, decode, and a loss to train by.

    codes = select(W_enc.T @ (x - b_dec) + b_enc)
    x_hat = codes @ W_dec + b_dec

A *transcoder* is any architecture that writes other vectors y, of width d_out, than it reads: it does not centre its
inputs on b_dec, which lies among the outputs, and may have a linear path past the latents (`skip`):

    codes = select(W_enc.T @ x + b_enc)
    y_hat = codes @ W_dec + b_dec (+ x @ W_skip)

One class serves training and use. Weights are kept latent-major: `W_enc_rows` [d_sae d_in] and `W_dec` [d_sae d_out]
are contiguous, so a sparse gradient arrives in the layout of its parameter, and `W_enc` [d_in d_sae] is a view.
"""

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae import config as configs
from sae.dictionaries.codes import Codes
from sae.dictionaries.folding import Foldable
from sae.dictionaries.html import dictionary_html
from sae.dictionaries.initialisation import geometric_median, normalise_rows_, random_unit_rows
from sae.errors import ConfigError, DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors

LAYER_EPS = 1e-5
"""Added to the deviation that a layer norm divides by."""


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig:
    """Settings that every architecture has."""

    kind: ClassVar[str]

    d_sae: int
    """Number of latents."""

    skip: bool = False
    """Add a linear path from input to output; for transcoders (arXiv 2501.18823)."""

    layer_norm: bool = False
    """Bring every vector to mean 0 and standard deviation 1 before encoding, and back after decoding."""

    def __post_init__(self) -> None:
        if self.d_sae < 1:
            raise ConfigError(f"d_sae: {self.d_sae} latents; at least 1 is needed.")

    def for_sites(self, inputs: Sequence[int], targets: Sequence[int]) -> Self:
        """Fill in what depends on the widths of the sites that are read and, by a transcoder, written.

        Raises:
            ConfigError: the architecture is not for such sites.
        """
        if self.layer_norm and len(inputs) > 1:
            raise ConfigError(f"layer_norm: would mix the {len(inputs)} sites that are read.")
        return self


@dataclass(frozen=True)
class Loss:
    """What one batch yields: `terms`, each with its coefficient, their sum, and the forward pass itself.

    The squared error of what is written is the term that `Dictionary.error_term` names. `x_hat` stands for `target`,
    the normalised vectors that should be written.
    """

    terms: Mapping[str, tuple[float | Tensor, Float[Tensor, ""]]]
    codes: Codes
    x_hat: Vectors
    target: Vectors

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is made small."""
        return weighted_sum(self.terms)

    @property
    def parts(self) -> dict[str, Float[Tensor, ""]]:
        """The terms to log, without coefficients."""
        return {name: value.detach() for name, (_, value) in self.terms.items()}


def weighted_sum(terms: Mapping[str, tuple[float | Tensor, Tensor]]) -> Float[Tensor, ""]:
    """Add up terms of a loss, each with its coefficient."""
    return torch.stack([coefficient * value for coefficient, value in terms.values()]).sum()


class Dictionary(Foldable, ABC):
    """Base of all architectures; a subclass sets `config_type` and defines `select`, and what its loss adds.

    Attributes:
        config: the architecture's settings.
        provenance: where it comes from (subject, hookpoint, store hash, seed, ...); filled on saving and loading.
        W_enc_rows: [d_sae d_in]; row i is the direction that latent i reads.
        W_dec: [d_sae d_out]; row i is the direction that latent i writes, of norm 1 while it is trained.
        b_enc, b_dec: [d_sae] and [d_out].
        W_skip: [d_in d_out], or None.
        variance: scalar; total variance of the targets, which makes the loss dimensionless (set by `initialise`).
        is_transcoder: whether it writes other vectors than it reads.
        transcodes: whether this architecture can be a transcoder.
        fitted: whether `initialise` is all there is to learning it, with no steps after it.
        sample_vectors: vectors from which a training run initialises it.
        error_term: the term of the loss that is the squared error.
    """

    config_type: ClassVar[type[DictionaryConfig]]
    transcodes: ClassVar[bool] = True
    fitted: ClassVar[bool] = False
    sample_vectors: ClassVar[int] = 8192
    error_term: ClassVar[str] = "mse"
    variance: Tensor

    def __init__(self, config: DictionaryConfig, d_in: int, d_out: int | None = None) -> None:
        super().__init__()
        if min(d_in, d_out or d_in) < 1:
            raise DictionaryError(
                f"{config.kind}: d_in is {d_in}, d_out {d_out}; vectors need at least one coordinate."
            )
        self.config, self.is_transcoder = config, d_out is not None
        if self.is_transcoder and not self.transcodes:
            raise DictionaryError(f"{config.kind}: rebuilds what it reads; it cannot be a transcoder (d_out {d_out}).")
        if config.skip and not self.is_transcoder:
            raise DictionaryError(
                f"{config.kind}: skip would copy the input; it is for transcoders, which have a target."
            )
        if config.layer_norm and d_in < 2:
            raise DictionaryError(f"{config.kind}: layer_norm of a single coordinate is undefined.")
        if config.layer_norm and self.is_transcoder:
            raise DictionaryError(f"{config.kind}: layer_norm cannot be undone for outputs of a transcoder.")
        self.provenance: dict[str, Any] = {}
        d_out = d_out or d_in
        self.W_enc_rows = nn.Parameter(torch.zeros(config.d_sae, d_in))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, d_out))
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_in, d_out)) if config.skip else None
        self.register_buffer("variance", torch.tensor(float(d_out)))

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Encoder matrix, a view of `W_enc_rows`."""
        return self.W_enc_rows.T

    @property
    def centre(self) -> Float[Tensor, " d_in"]:
        """What is subtracted from vectors before they are encoded."""
        return self.b_dec.new_zeros(self.d_in) if self.is_transcoder else self.b_dec

    @abstractmethod
    def select(self, x: Vectors) -> Codes:
        """Return the codes of vectors whose width has been checked and whose norm, if need be, brought in line."""

    def encode(self, x: Vectors) -> Codes:
        """Return the sparse codes of every row of x [batch d_in]; no row depends on another.

        Raises:
            DictionaryError: the rows have another width than `d_in`.
        """
        x = self._checked(x)
        if not self.config.layer_norm:
            return self.select(x)
        mean, deviation = layer_statistics(x)
        codes = self.select((x - mean) / (deviation + LAYER_EPS))
        return dataclasses.replace(codes, row_mean=mean, row_deviation=deviation)

    def decode(self, codes: Codes) -> Float[Tensor, "batch d_out"]:
        """Return the vectors that the codes stand for, without a transcoder's linear path (see `output`)."""
        x_hat = kernels.decode(codes.offsets, codes.indices, codes.values, self.W_dec) + self.b_dec
        if codes.row_mean is None or codes.row_deviation is None:
            return x_hat
        return x_hat * codes.row_deviation + codes.row_mean

    def forward(self, x: Vectors) -> Float[Tensor, "batch d_out"]:
        """Return the reconstruction of x, or a transcoder's output."""
        return self.output(self.encode(x), x)

    def output(self, codes: Codes, x: Vectors) -> Float[Tensor, "batch d_out"]:
        """Decode codes and add a transcoder's linear path past the latents, which reads x itself."""
        x_hat = self.decode(codes)
        return x_hat if self.W_skip is None else x_hat + self._checked(x) @ self.W_skip

    def loss(
        self, x: Vectors, dead: Bool[Tensor, " d_sae"], target: Float[Tensor, "batch d_out"] | None = None
    ) -> Loss:
        """Return what training makes small: the normalised squared error, plus what the architecture adds.

        Args:
            x: vectors to encode.
            dead: latents that have not fired for long.
            target: what a transcoder should write; x itself if not given.
        """
        x = self.normalised(x)
        return self.training_loss(x, x if target is None else target.to(x.dtype), dead)

    def normalised(self, x: Vectors) -> Vectors:
        """Return vectors as `select` sees them."""
        x = self._checked(x)
        if not self.config.layer_norm:
            return x
        mean, deviation = layer_statistics(x)
        return (x - mean) / (deviation + LAYER_EPS)

    def training_loss(self, x: Vectors, target: Float[Tensor, "batch d_out"], dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return the loss on vectors that have been checked and normalised; architectures override this one."""
        codes = self.select(x)
        x_hat = self.reconstruct(codes, x)
        return self.summed(codes, x_hat, target, {"mse": (1.0, self.normalised_error(target, x_hat))})

    def reconstruct(self, codes: Codes, x: Vectors) -> Float[Tensor, "batch d_out"]:
        """Decode codes of normalised vectors, the linear path included."""
        x_hat = kernels.decode(codes.offsets, codes.indices, codes.values, self.W_dec) + self.b_dec
        return x_hat if self.W_skip is None else x_hat + x @ self.W_skip

    def summed(
        self, codes: Codes, x_hat: Tensor, target: Tensor, terms: Mapping[str, tuple[float | Tensor, Tensor]]
    ) -> Loss:
        """Return the loss that is the sum of terms, each with its coefficient."""
        return Loss(terms, codes, x_hat, target)

    def schedule(self, progress: float) -> None:
        """Set what moves over a run; called before every step with the share of steps done, in [0, 1)."""

    def calibrate(self, chunks: Iterable[Vectors]) -> dict[str, float]:
        """Set what a trained dictionary needs for use from held-out vectors, as it was trained on; return figures.

        Figures whose name starts with "threshold" are in the units of codes.
        """
        return {}

    @classmethod
    def is_calibrated(cls) -> bool:
        """Whether `calibrate` has something to set."""
        return cls.calibrate is not Dictionary.calibrate

    @torch.no_grad()
    def initialise(
        self, sample: Vectors, generator: torch.Generator, target: Float[Tensor, "batch d_out"] | None = None
    ) -> None:
        """Start from data: b_dec at the targets' geometric median, random unit decoder rows, encoder = decoder.

        A transcoder's encoder rows are drawn apart, its biases let latents see centred inputs, and its decoder rows
        are random too: their norm is kept at 1, so that nothing starts at zero.
        """
        sample = self.normalised(sample)
        goal = sample if target is None else target
        self.b_dec.copy_(geometric_median(goal))
        self.b_enc.zero_()
        self.draw_directions(sample, generator)
        spread = goal.double() - goal.double().mean(0)
        self.variance.copy_(spread.square().sum(1).mean().clamp_min(torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    def draw_directions(self, sample: Vectors, generator: torch.Generator) -> None:
        """Draw the rows of decoder and encoder, for `initialise`."""
        self.W_dec.copy_(random_unit_rows(self.d_sae, self.d_out, generator))
        if self.is_transcoder:
            self.W_enc_rows.copy_(random_unit_rows(self.d_sae, self.d_in, generator))
            self.b_enc.copy_(-(self.W_enc_rows @ geometric_median(sample).to(self.W_enc_rows.dtype)))
        else:
            self.W_enc_rows.copy_(self.W_dec)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Take out of the decoder's gradient what would only change the length of its rows; before clipping."""
        if self.W_dec.grad is not None:
            along = kernels.row_dots(self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(along[:, None], self.W_dec, value=-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to norm 1."""
        normalise_rows_(self.W_dec)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds, in the orientation of the API: W_enc [d_in d_sae], W_dec [d_sae d_out]."""
        state = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        return {"W_enc": state.pop("W_enc_rows").T} | state

    @property
    def hash(self) -> str:
        """sha256 over config and tensors: equal hashes mean equal codes and reconstructions.

        Switches that are off do not count, so a new one leaves the hashes of dictionaries without it as they were.
        """
        settings = {key: value for key, value in configs.encode(self.config).items() if value is not False}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        """Return kind, sizes, settings and origin in one line."""
        widths = {"d_in": self.d_in} | ({"d_out": self.d_out} if self.is_transcoder else {})
        settings = {key: value for key, value in configs.encode(self.config).items() if value is not False}
        kind = settings.pop("kind")
        origin = [str(self.provenance[key]) for key in ("subject", "hookpoint") if key in self.provenance]
        described = ", ".join(f"{key}={value}" for key, value in (widths | settings).items())
        return f"<{kind} dictionary: {described}{'; ' + ' '.join(origin) if origin else ''}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        d_out = self.d_out if self.is_transcoder else None
        return dictionary_html(configs.encode(self.config), self.d_in, d_out, self.provenance, self.W_dec.detach())

    def normalised_error(self, target: Tensor, x_hat: Tensor) -> Float[Tensor, ""]:
        """Squared error per row over the targets' variance: 1 for predicting the mean.

        The divisor is fixed at the start, so the loss of a batch is the mean of its shards' losses.
        """
        return (target - x_hat).square().sum(1).mean() / self.variance

    def _checked(self, x: Vectors) -> Vectors:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise DictionaryError(
                f"{self!r}: got vectors of shape {list(x.shape)}; expected [batch, {self.d_in}], "
                f"width {self.d_in} rather than {x.shape[-1] if x.ndim else 'none'}."
            )
        return x.to(self.W_dec.dtype)


def layer_statistics(x: Vectors) -> tuple[Float[Tensor, "batch 1"], Float[Tensor, "batch 1"]]:
    """Return mean and standard deviation of every row over its coordinates, the latter divided by d_in - 1.

    That divisor, and `LAYER_EPS` beside it, are those of OpenAI's sparse_autoencoder, SAELens and ViT-Prisma.
    """
    return x.mean(1, keepdim=True), x.std(1, keepdim=True)

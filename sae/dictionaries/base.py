"""What every dictionary is: a config, four tensors, encode, decode, and a loss to train by.

    codes = select(W_enc.T @ (x - b_dec) + b_enc)
    x_hat = codes @ W_dec + b_dec

One class serves training and use. Weights are kept latent-major: `W_enc_rows` and `W_dec` are [d_sae d_in] contiguous,
so a sparse gradient arrives in the layout of its parameter, and `W_enc` [d_in d_sae] is a view of the former.
"""

import copy
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sae import config as configs
from sae.dictionaries.codes import Codes
from sae.dictionaries.initialisation import geometric_median, normalise_rows_, random_unit_rows
from sae.errors import ConfigError, DictionaryError
from sae.kernels import interface as kernels
from sae.tensors import Vectors


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig:
    """Settings that every architecture has."""

    kind: ClassVar[str]

    d_sae: int
    """Number of latents."""

    def __post_init__(self) -> None:
        if self.d_sae < 1:
            raise ConfigError(f"d_sae: {self.d_sae} latents; at least 1 is needed.")


@dataclass(frozen=True)
class Loss:
    """What one batch yields: `total` to differentiate, detached `parts` to log, and the forward pass itself."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    codes: Codes
    x_hat: Vectors


class Dictionary(nn.Module, ABC):
    """Base of all architectures; a subclass sets `config_type` and defines `encode`, most also `loss`.

    Attributes:
        config: the architecture's settings.
        provenance: where it comes from (subject, hookpoint, store hash, seed, ...); filled on saving and loading.
        W_enc_rows: [d_sae d_in]; row i is the direction that latent i reads.
        W_dec: [d_sae d_in]; row i is the direction that latent i writes, of norm 1.
        b_enc, b_dec: [d_sae] and [d_in].
        variance: scalar; total variance of the inputs, which makes the loss dimensionless (set by `initialise`).
    """

    config_type: ClassVar[type[DictionaryConfig]]
    variance: Tensor

    def __init__(self, config: DictionaryConfig, d_in: int) -> None:
        super().__init__()
        if d_in < 1:
            raise DictionaryError(f"{config.kind}: d_in is {d_in}; vectors need at least one coordinate.")
        self.config = config
        self.provenance: dict[str, Any] = {}
        self.W_enc_rows = nn.Parameter(torch.zeros(config.d_sae, d_in))
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.W_dec = nn.Parameter(torch.zeros(config.d_sae, d_in))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.tensor(float(d_in)))

    @property
    def d_in(self) -> int:
        """Width of the vectors."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def W_enc(self) -> Float[Tensor, "d_in d_sae"]:
        """Encoder matrix, a view of `W_enc_rows`."""
        return self.W_enc_rows.T

    @abstractmethod
    def encode(self, x: Vectors) -> Codes:
        """Return the sparse codes of every row of x [batch d_in].

        Raises:
            DictionaryError: the rows have another width than `d_in`.
        """

    def decode(self, codes: Codes) -> Vectors:
        """Return the vectors that the codes stand for."""
        return kernels.decode(codes.offsets, codes.indices, codes.values, self.W_dec) + self.b_dec

    def forward(self, x: Vectors) -> Vectors:
        """Return the reconstruction of x."""
        return self.decode(self.encode(x))

    def loss(self, x: Vectors, dead: Bool[Tensor, " d_sae"]) -> Loss:
        """Return the normalised squared error of the reconstruction; `dead` marks latents that stopped firing."""
        x, codes = self._checked(x), self.encode(x)
        x_hat = self.decode(codes)
        mse = self._normalised_error(x, x_hat)
        return Loss(mse, {"mse": mse.detach()}, codes, x_hat)

    @torch.no_grad()
    def initialise(self, sample: Vectors, generator: torch.Generator) -> None:
        """Start from data: b_dec at its geometric median, random unit decoder rows, encoder = decoder transposed."""
        sample = self._checked(sample)
        self.b_dec.copy_(geometric_median(sample))
        self.W_dec.copy_(random_unit_rows(self.d_sae, self.d_in, generator))
        self.W_enc_rows.copy_(self.W_dec)
        self.b_enc.zero_()
        spread = sample.double() - sample.double().mean(0)
        self.variance.copy_(spread.square().sum(1).mean().clamp_min(torch.finfo(torch.float32).tiny))

    @torch.no_grad()
    def after_backward(self) -> None:
        """Take out of the decoder's gradient what would only change the length of its rows; before clipping."""
        if self.W_dec.grad is not None:
            along = torch.linalg.vecdot(self.W_dec.grad, self.W_dec)
            self.W_dec.grad.addcmul_(along[:, None], self.W_dec, value=-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to norm 1."""
        normalise_rows_(self.W_dec)

    @torch.no_grad()
    def fold_scale(self, scale: float) -> Self:
        """Return the dictionary for unscaled inputs, given that this one was trained on x * scale.

        Directions stay as they are, so decoder rows keep norm 1 and codes come out in the subject's own units:
        `folded.encode(x)` has the latents of `trained.encode(x * scale)` with values divided by scale, and
        `folded(x)` = `trained(x * scale)` / scale.

        Raises:
            DictionaryError: scale is not a positive finite number.
        """
        if not 0 < scale < float("inf"):
            raise DictionaryError(f"{self.config.kind}: cannot fold the scale {scale}; it must be positive and finite.")
        folded = copy.deepcopy(self)
        folded.b_enc.div_(scale)
        folded.b_dec.div_(scale)
        folded.variance.div_(scale**2)
        return folded

    def tensors(self) -> dict[str, Tensor]:
        """Return what a file holds, in the orientation of the API: W_enc [d_in d_sae], W_dec [d_sae d_in]."""
        state = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        return {"W_enc": state.pop("W_enc_rows").T} | state

    @property
    def hash(self) -> str:
        """sha256 over config and tensors: equal hashes mean equal codes and reconstructions."""
        digest = hashlib.sha256(json.dumps(configs.encode(self.config), sort_keys=True).encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        """Return kind, sizes, settings and origin in one line."""
        settings = {"d_in": self.d_in} | configs.encode(self.config)
        kind = settings.pop("kind")
        origin = [str(self.provenance[key]) for key in ("subject", "hookpoint") if key in self.provenance]
        described = ", ".join(f"{key}={value}" for key, value in settings.items())
        return f"<{kind} dictionary: {described}{'; ' + ' '.join(origin) if origin else ''}>"

    def _checked(self, x: Vectors) -> Vectors:
        if x.ndim != 2 or x.shape[1] != self.d_in:
            raise DictionaryError(
                f"{self!r}: got vectors of shape {list(x.shape)}; expected [batch, {self.d_in}], "
                f"width {self.d_in} rather than {x.shape[-1] if x.ndim else 'none'}."
            )
        return x.to(self.W_dec.dtype)

    def _normalised_error(self, x: Vectors, x_hat: Vectors) -> Float[Tensor, ""]:
        """Squared error per row over the inputs' variance: 1 for predicting the mean.

        The divisor is fixed at the start, so the loss of a batch is the mean of its shards' losses.
        """
        return (x - x_hat).square().sum(1).mean() / self.variance

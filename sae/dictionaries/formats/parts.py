"""What a file of another library says about a dictionary, put into one form, and made into a dictionary of ours.

Four things differ between libraries, and a wrong guess at any of them loads without complaint: the orientation of
W_dec, whether b_dec is subtracted before encoding, whether inputs are scaled first, and whether latents are ranked by
their pre-activation or by what it adds to the output. The readers say how their format has it; here each is turned,
exactly, into the one convention that a `Dictionary` has.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from sae.dictionaries import registry
from sae.dictionaries.base import Dictionary
from sae.errors import ConfigError, DictionaryError, nearest

UNSAID = {kind: {"target_l0": None} for kind in ("relu", "jumprelu", "gated")}
"""Settings of training that no file holds, and whose defaults would claim something."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A dictionary as another library saved it.

    Attributes:
        kind: our name of its architecture.
        W_enc: [d_in d_sae]; W_dec: [d_sae d_out]; b_enc, b_dec: zero if not given.
        subtracts_b_dec: whether an autoencoder encodes x - b_dec, as ours do, or x.
        transcoder: whether it writes other vectors than it reads; then nothing is subtracted, but for `b_in`.
        b_in: [d_in]; what is subtracted before encoding, if it is a tensor of its own.
        settings: what our config of that kind calls the rest, such as k.
        tensors: further tensors under our names and in our orientation: threshold, r_mag, b_mag, W_skip. The bias of a
            gate is b_enc.
        per_vector: a normalisation that the library applies to every vector before encoding, by its name there.
        provenance: where it comes from, as far as the file says.
    """

    kind: str
    W_enc: Float[Tensor, "d_in d_sae"]
    W_dec: Float[Tensor, "d_sae d_out"]
    b_enc: Float[Tensor, " d_sae"] | None = None
    b_dec: Float[Tensor, " d_out"] | None = None
    subtracts_b_dec: bool = True
    transcoder: bool = False
    b_in: Float[Tensor, " d_in"] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    per_vector: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def scaled(self, scale: float, out_scale: float | None = None) -> Self:
        """Return the parts for vectors as they are, given that these were trained on x * scale; codes stay the same.

        Args:
            scale: factor of the inputs.
            out_scale: factor of what a transcoder writes; the same if not given.

        Raises:
            DictionaryError: a scale is not a positive finite number.
        """
        out_scale = scale if out_scale is None else out_scale
        if not (0 < scale < math.inf and 0 < out_scale < math.inf):
            raise DictionaryError(f"scale: {scale}, of outputs {out_scale}; they must be positive and finite.")
        b_dec, b_in = self.b_dec, self.b_in
        tensors = dict(self.tensors)
        if "W_skip" in tensors:
            tensors["W_skip"] = tensors["W_skip"] * (scale / out_scale)
        return replace(
            self,
            W_enc=self.W_enc * scale,
            W_dec=self.W_dec / out_scale,
            b_dec=None if b_dec is None else b_dec / out_scale,
            b_in=None if b_in is None else b_in / scale,
            tensors=tensors,
        )

    def ranked_by_output(self) -> Self:
        """Return the parts of a library that ranks latents by pre-activation times norm of the decoder row.

        The norms move into the encoder: decoder rows get norm 1, codes are multiplied by the norm.
        """
        norms = self.W_dec.double().norm(dim=1).clamp_min(1e-8)
        b_enc = None if self.b_enc is None else (self.b_enc * norms).to(self.b_enc.dtype)
        return replace(
            self,
            W_enc=(self.W_enc * norms).to(self.W_enc.dtype),
            W_dec=(self.W_dec / norms[:, None]).to(self.W_dec.dtype),
            b_enc=b_enc,
        )


@torch.no_grad()
def assemble(parts: Parts) -> Dictionary:
    """Return the dictionary that gives the codes and reconstructions of the library that wrote the parts.

    Weights of less than 32 bits are widened to float32.

    Raises:
        DictionaryError: shapes that do not fit together, or an architecture or normalisation that we do not have.
    """
    _check_shapes(parts)
    (d_in, d_sae), d_out = parts.W_enc.shape, parts.W_dec.shape[1]
    parts = _with_shift(_with_positive_thresholds(_widened(parts)))
    switches = {"skip": "W_skip" in parts.tensors, "layer_norm": parts.per_vector is not None}
    settings = {**UNSAID.get(parts.kind, {}), **switches, **parts.settings}
    try:
        config = registry.decode_config({"kind": parts.kind, "d_sae": d_sae, **settings})
    except ConfigError as error:
        raise DictionaryError(str(error)) from error
    dictionary = registry.make_dictionary(config, d_in, d_out if parts.transcoder else None).to(parts.W_dec.dtype)
    given = {"W_enc": parts.W_enc, "W_dec": parts.W_dec, "b_enc": parts.b_enc, "b_dec": parts.b_dec, **parts.tensors}
    places = dictionary.tensors()
    for name, tensor in given.items():
        if name not in places or (tensor is not None and places[name].shape != tensor.shape):
            shape = "" if tensor is None else f" of shape {list(tensor.shape)}"
            raise DictionaryError(f"{parts.kind}: has no place for {name}{shape}.{nearest(name, sorted(places))}")
        if tensor is not None:
            places[name].copy_(tensor)
    dictionary.provenance = dict(parts.provenance)
    return dictionary.eval()


def _check_shapes(parts: Parts) -> None:
    (d_in, d_sae), (rows, d_out) = parts.W_enc.shape, parts.W_dec.shape
    if rows != d_sae or (d_out != d_in and not parts.transcoder):
        raise DictionaryError(
            f"W_enc has shape {[d_in, d_sae]}, W_dec {[rows, d_out]}; they should be [d_in, d_sae] and [d_sae, d_in]."
        )
    if parts.per_vector not in (None, "layer_norm"):
        raise DictionaryError(
            f"it normalises every vector by itself ({parts.per_vector}) before encoding; ours can do a layer_norm, or "
            "take vectors as they are."
        )


def _widened(parts: Parts) -> Parts:
    dtype = torch.promote_types(parts.W_dec.dtype, torch.float32)
    values = {name: getattr(parts, name) for name in ("W_enc", "W_dec", "b_enc", "b_dec", "b_in")}
    wide = {name: None if value is None else value.to(dtype) for name, value in values.items()}
    return replace(parts, **wide, tensors={name: tensor.to(dtype) for name, tensor in parts.tensors.items()})


def _with_positive_thresholds(parts: Parts) -> Parts:
    """Raise thresholds to zero where they are below: the libraries apply a ReLU as well, so codes are positive."""
    if "threshold" not in parts.tensors:
        return parts
    threshold = parts.tensors["threshold"].clamp_min(0).expand(parts.W_enc.shape[1])
    return replace(parts, tensors={**parts.tensors, "threshold": threshold})


def _with_shift(parts: Parts) -> Parts:
    """Make up in the encoder's biases for another centre than ours: (x - b) W = (x - c) W + (c - b) W."""
    zero = parts.W_enc.new_zeros(parts.W_enc.shape[0])
    b_dec = zero if parts.b_dec is None else parts.b_dec
    theirs = b_dec if parts.subtracts_b_dec and not parts.transcoder else zero
    theirs = theirs if parts.b_in is None else parts.b_in
    ours = zero if parts.transcoder else b_dec
    if ours is theirs:
        return parts
    shift, dtype = (ours - theirs).double() @ parts.W_enc.double(), parts.W_enc.dtype
    tensors = dict(parts.tensors)
    if "r_mag" in tensors:
        tensors["b_mag"] = (tensors["b_mag"] + tensors["r_mag"].double().exp() * shift).to(dtype)
    b_enc = shift if parts.b_enc is None else parts.b_enc + shift
    return replace(parts, b_enc=b_enc.to(dtype), tensors=tensors)

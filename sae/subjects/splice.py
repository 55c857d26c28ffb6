"""Replacing an activation: by its reconstruction, with or without the error, or by nothing of its own.

The functions return edits for `Subject.forward`, so evaluation and laboratory replace activations the same way.
"""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from sae.errors import SubjectError
from sae.subjects.base import Activation, Edit
from sae.tensors import Batch, Kind

Reconstruction = Callable[[Float[Tensor, "n d_in"]], Float[Tensor, "n d_in"]]
"""Encode and decode: vectors to their reconstructions, float32."""


def reconstruct(
    encode_decode: Reconstruction,
    keep: Bool[Tensor, "example pos"] | None = None,
    keep_error: bool = False,
    change: Reconstruction | None = None,
) -> Edit:
    """Return an edit that puts reconstructions in the place of activations.

    Args:
        encode_decode: gives x_hat for x.
        keep: the positions to replace (in a store's words: the rows that exist); all of them if not given.
        keep_error: add x - x_hat back, so that only what `change` does differs from the untouched subject, which
            stays exactly as it was where `change` does nothing.
        change: gives the reconstruction that goes on, such as with latents steered; `encode_decode` if not given.
    """

    def replace(x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
        x_hat = encode_decode(x)
        changed = change(x) if change else x_hat
        # x + (changed - x_hat), not (x - x_hat) + changed: the first is x itself when the two are equal.
        return x + (changed - x_hat) if keep_error else changed

    return _at(keep, replace)


def record(into: dict[str, Activation], name: str) -> Edit:
    """Return an edit that changes nothing and keeps the activation in `into[name]`."""

    def keep(x: Activation) -> Activation:
        into[name] = x
        return x

    return keep


def put(vectors: Float[Tensor, "n d_in"], keep: Bool[Tensor, "example pos"]) -> Edit:
    """Return an edit that puts given vectors in the place of activations at the kept positions, in their order."""
    return _at(keep, lambda x: vectors.to(x))


def ablate(
    kind: Literal["zero", "mean"],
    mean: Float[Tensor, " d_in"] | None = None,
    keep: Bool[Tensor, "example pos"] | None = None,
) -> Edit:
    """Return an edit that puts zero, or the mean activation, in the place of activations.

    Raises:
        SubjectError: `kind` is "mean" and there is no mean, or `kind` is neither.
    """
    if kind == "zero":
        return _at(keep, lambda x: x.new_zeros(x.shape))
    if kind != "mean":
        raise SubjectError(f"ablate: unknown kind {kind!r}; allowed: zero, mean.")
    if mean is None:
        raise SubjectError("ablate: kind 'mean' needs the mean of the activations, [d_in].")
    return _at(keep, lambda x: mean.to(x).expand_as(x))


def predictions(batch: Batch, replaced: Bool[Tensor, "example pos"]) -> Bool[Tensor, "example pos_before_last"]:
    """Mark the positions whose prediction of the next token says what a replacement did.

    Something is replaced there, and what comes next is a token of the text: neither padding, nor BOS, nor special.
    """
    assert batch.attended is not None and batch.kind is not None
    special = (batch.kind == Kind.BOS) | (batch.kind == Kind.SPECIAL)
    return replaced[:, :-1] & (batch.attended & ~special)[:, 1:]


def _at(keep: Bool[Tensor, "example pos"] | None, replace: Reconstruction) -> Edit:
    """Apply `replace` in float32 to the vectors at the kept positions and return the activation in its own dtype."""

    def edit(x: Activation) -> Activation:
        if keep is None:
            return replace(x.float().flatten(0, -2)).view_as(x).to(x.dtype)
        if keep.shape != x.shape[:-1]:
            raise SubjectError(f"keep {tuple(keep.shape)} does not fit an activation of shape {tuple(x.shape)}.")
        at = keep.to(x.device)
        edited = x.clone()
        edited[at] = replace(x[at].float()).to(x.dtype)
        return edited

    return edit

"""Sparse encoding and decoding with their gradients, behind one interface.

After the encoder's matrix product only the selected entries carry information, so nothing here ever builds a dense
gradient of shape [batch, d_sae]. Two autograd functions are written once, in terms of four operations that every
backend supplies (`Backend`):

    select_topk    pre-activations and their largest entries, forward only
    decode         x_hat[i] = sum_j values[j] * weight[indices[j]]          over the entries j of row i
    gather_dots    out[j]   = grad[i] . weight[indices[j]]                  the gradient of decode to its values
    accumulate     out[l]   = sum of values[j] * vectors[i] over entries j with indices[j] = l, a product with the
                              transposed codes: the gradient of decode to its weight, and of encode to its weight

Weights are latent-major, [d_sae d_in] contiguous, row l belonging to latent l; gradients come in the same layout.
Entries are in compressed rows: row i holds `offsets[i]:offsets[i + 1]`; a latent listed twice in a row counts twice.

`reference` is readable, runs on any device and is what the others are tested against; `cpu` is the fast one for CPUs,
`gpu` the one for CUDA devices, which needs Triton.
"""

import importlib.util
import logging
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae.kernels import cpu, reference

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What a backend module supplies; shapes as in the functions of `reference`."""

    def select_topk(
        self, x: Tensor, weight: Tensor, bias: Tensor, k: int, dead: Tensor | None, k_aux: int
    ) -> tuple[Tensor, Tensor]: ...

    def decode(self, offsets: Tensor, indices: Tensor, values: Tensor, weight: Tensor) -> Tensor: ...

    def gather_dots(self, offsets: Tensor, indices: Tensor, grad: Tensor, weight: Tensor) -> Tensor: ...

    def accumulate(self, offsets: Tensor, indices: Tensor, values: Tensor, vectors: Tensor, d_sae: int) -> Tensor: ...


BACKENDS: dict[str, Backend] = {"cpu": cpu}
"""Backends by device type. That of "cuda" joins on first use; any other device runs `reference`."""


def backend_of(tensor: Tensor) -> Backend:
    """Return the backend for the device that a tensor lies on."""
    device = tensor.device.type
    if device == "cuda" and device not in BACKENDS:
        BACKENDS[device] = _cuda_backend()
    return BACKENDS.get(device, reference)


def _cuda_backend() -> Backend:
    """Import Triton only where it is of use; torch without it stays slow, but works."""
    if importlib.util.find_spec("triton") is None:
        logger.warning(
            "Triton is not installed: on CUDA devices sparse operations run as dense ones, many times slower."
        )
        return reference
    from sae.kernels import gpu

    return gpu


def encode_topk(
    x: Float[Tensor, "batch d_in"],
    centre: Float[Tensor, " d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Bool[Tensor, " d_sae"] | None = None,
    k_aux: int = 0,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Return the largest pre-activations of every row of (x - centre) @ weight.T + bias, and their latents.

    The first k columns are the k largest, in no particular order. With `dead`, more columns follow: the largest among
    the dead latents of the same pre-activations, at most `k_aux` of them. Where fewer latents are dead a backend may
    return fewer columns, or fill up with -inf, which a rectifier turns into an entry without effect.

    Gradients flow to all four tensors through the selected entries only. Indices are int32.
    """
    return _EncodeTopK.apply(x, centre, weight, bias, k, dead, k_aux)  # type: ignore[return-value]


def decode(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "batch d_in"]:
    """Return the weighted sum of latent directions of every row; gradients flow to values and weight."""
    return _Decode.apply(offsets, indices, values, weight)  # type: ignore[return-value]


class _EncodeTopK(torch.autograd.Function):
    """Matrix product, selection, and a gradient that touches the selected entries alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        centre: Tensor,
        weight: Tensor,
        bias: Tensor,
        k: int,
        dead: Tensor | None,
        k_aux: int,
    ) -> tuple[Tensor, Tensor]:
        centred = x - centre
        values, indices = backend_of(weight).select_topk(centred, weight, bias, k, dead, k_aux)
        ctx.save_for_backward(centred, weight, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight, indices = ctx.saved_tensors
        backend, (batch, n) = backend_of(weight), indices.shape
        needs_x, _, needs_weight = ctx.needs_input_grad[:3]
        offsets = torch.arange(batch + 1, device=indices.device) * n
        entries, grad = indices.reshape(-1), grads[0].reshape(-1).contiguous()
        grad_weight = backend.accumulate(offsets, entries, grad, centred, len(weight)) if needs_weight else None
        grad_bias = backend.accumulate(offsets, entries, grad, centred.new_ones(batch, 1), len(weight)).squeeze(1)
        grad_x = backend.decode(offsets, entries, grad, weight) if needs_x else None
        # The centre sees every row's gradient summed, and that sum already stands in the bias gradient.
        return grad_x, -(grad_bias @ weight), grad_weight, grad_bias, None, None, None


class _Decode(torch.autograd.Function):
    """Sparse codes times the decoder."""

    @staticmethod
    def forward(ctx: Any, offsets: Tensor, indices: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        indices, values = indices.contiguous(), values.contiguous()
        ctx.save_for_backward(offsets, indices, values, weight)
        return backend_of(weight).decode(offsets, indices, values, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        offsets, indices, values, weight = ctx.saved_tensors
        backend, grad = backend_of(weight), grads[0].contiguous()
        needs_values, needs_weight = ctx.needs_input_grad[2:]
        grad_values = backend.gather_dots(offsets, indices, grad, weight) if needs_values else None
        grad_weight = backend.accumulate(offsets, indices, values, grad, len(weight)) if needs_weight else None
        return None, None, grad_values, grad_weight

"""Sparse encoding and decoding with their gradients, behind one interface.

After the encoder's matrix product only the selected entries carry information, so nothing here ever builds a dense
gradient of shape [batch, d_sae]. The autograd functions are written once, in terms of operations that every backend
supplies (`Backend`):

    select_topk        pre-activations and the k largest entries of every row
    select_above       pre-activations and the entries above a threshold
    select_batch_topk  pre-activations and the n largest positive entries of the whole batch
    decode             x_hat[i] = sum_j values[j] * weight[indices[j]]          over the entries j of row i
    gather_dots        out[j]   = grad[i] . weight[indices[j]]                  the gradient of decode to its values
    accumulate         out[l]   = sum of values[j] * vectors[i] over entries j with indices[j] = l, a product with the
                                  transposed codes: the gradient of decode to its weight, and of encode to its weight

Weights are latent-major, [d_sae d_in] contiguous, row l belonging to latent l; gradients come in the same layout.
Entries are in compressed rows: row i holds `offsets[i]:offsets[i + 1]`; a latent listed twice in a row counts twice.
A backend may fill rows up with entries of latent 0 and value -inf, which a rectifier turns into entries without effect.

`reference` is readable, runs on any device and is what the others are tested against; `cpu` is the fast one for CPUs,
`cpu_bf16` a faster one that looks for candidates in bf16 (see `candidates`), `gpu` the one for CUDA devices, by Triton.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae.kernels import cpu, cpu_bf16, reference

Entries = tuple[Tensor, Tensor, Tensor]
"""Offsets, indices and values of compressed rows."""

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """What a backend module supplies; shapes as in the functions of `reference`."""

    def select_topk(
        self, x: Tensor, weight: Tensor, bias: Tensor, k: int, dead: Tensor | None, k_aux: int, absolute: bool = False
    ) -> tuple[Tensor, Tensor]: ...

    def select_above(self, x: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor) -> Entries: ...

    def select_batch_topk(self, x: Tensor, weight: Tensor, bias: Tensor, n: int, floor: Tensor) -> Entries: ...

    def decode(self, offsets: Tensor, indices: Tensor, values: Tensor, weight: Tensor) -> Tensor: ...

    def gather_dots(self, offsets: Tensor, indices: Tensor, grad: Tensor, weight: Tensor) -> Tensor: ...

    def accumulate(self, offsets: Tensor, indices: Tensor, values: Tensor, vectors: Tensor, d_sae: int) -> Tensor: ...


BACKENDS: dict[str, Backend] = {"cpu": cpu}
"""Backends by device type. That of "cuda" joins on first use; any other device runs `reference`."""

HAS_BF16 = cpu_bf16.is_fast()
"""Whether this processor multiplies bf16 matrices faster than float32 ones."""


Candidates = Literal["exact", "bf16"]
_candidates: ContextVar[Candidates] = ContextVar("candidates", default="exact")


@contextmanager
def candidates(precision: Candidates) -> Iterator[None]:
    """Choose in what precision float32 encoders on the CPU look for their largest entries; values stay float32.

    "bf16" is several times faster where the processor has bf16 products, and like "exact" elsewhere.
    """
    token = _candidates.set(precision)
    try:
        yield
    finally:
        _candidates.reset(token)


def backend_of(tensor: Tensor) -> Backend:
    """Return the backend for the device that a tensor lies on."""
    device = tensor.device.type
    if device == "cpu" and tensor.dtype == torch.float32 and _candidates.get() == "bf16" and HAS_BF16:
        return cpu_bf16
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
    *,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Return the largest pre-activations of every row of (x - centre) @ weight.T + bias, and their latents.

    The first k columns are the k largest, in no particular order. With `dead`, more columns follow: the largest among
    the dead latents of the same pre-activations, at most `k_aux` of them. Where fewer latents are dead a backend may
    return fewer columns, or fill up with -inf. With k = 0 there are the dead ones only. With `absolute` the k largest
    are those furthest from zero, on either side.

    Gradients flow to all four tensors through the selected entries only. Indices are int32.
    """

    def select(centred: Tensor) -> Entries:
        values, indices = backend_of(weight).select_topk(centred, weight, bias, k, dead, k_aux, absolute)
        offsets = torch.arange(len(x) + 1, device=weight.device) * indices.shape[1]
        return offsets, indices.reshape(-1), values.reshape(-1)

    _, indices, values = _Encode.apply(select, x, centre, weight, bias)  # type: ignore[misc]
    n = len(values) // max(len(x), 1) if len(x) else k
    return values.view(len(x), n), indices.view(len(x), n)


def encode_above(
    x: Float[Tensor, "batch d_in"],
    centre: Float[Tensor, " d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the pre-activations that are above a threshold, one per latent or one for all, in compressed rows.

    Gradients flow to the four tensors before it through the selected entries only, none to the threshold.
    """
    return _Encode.apply(  # type: ignore[return-value]
        lambda centred: backend_of(weight).select_above(centred, weight, bias, threshold), x, centre, weight, bias
    )


def encode_batch_topk(
    x: Float[Tensor, "batch d_in"],
    centre: Float[Tensor, " d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the n largest positive pre-activations of the whole batch (fewer if fewer are positive).

    Args:
        x: vectors.
        centre: subtracted from them.
        weight: encoder rows.
        bias: encoder bias.
        n: entries in the whole batch.
        floor: a guess from below at the n-th largest pre-activation; decides speed, not the result.

    Gradients as for `encode_above`.
    """
    return _Encode.apply(  # type: ignore[return-value]
        lambda centred: backend_of(weight).select_batch_topk(centred, weight, bias, n, floor), x, centre, weight, bias
    )


def decode(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "batch d_in"]:
    """Return the weighted sum of latent directions of every row; gradients flow to values and weight."""
    return _Decode.apply(offsets, indices, values, weight)  # type: ignore[return-value]


def gather(
    per_latent: Float[Tensor, " d_sae"], offsets: Int[Tensor, " batch_plus_1"], indices: Int[Tensor, " nnz"]
) -> Float[Tensor, " nnz"]:
    """Return for every entry what belongs to its latent, such as a bias or a threshold.

    The gradient, a sum over each latent's entries, has the same bits for the same entries on every device, and the
    precision of `per_latent` also under autocast.
    """
    return _Gather.apply(per_latent, offsets, indices)  # type: ignore[return-value]


def row_dots(a: Float[Tensor, "rows width"], b: Float[Tensor, "rows width"]) -> Float[Tensor, " rows"]:
    """Multiply every row of a with its row of b, without a product of their size between; no gradients.

    The same as gathering the dots of a code in which row i holds latent i alone.
    """
    numbers = torch.arange(len(a) + 1, device=a.device)
    return backend_of(a).gather_dots(numbers, numbers[:-1].to(torch.int32), a, b)


class _Encode(torch.autograd.Function):
    """Matrix product, selection, and a gradient that touches the selected entries alone."""

    @staticmethod
    def forward(
        ctx: Any, select: Callable[[Tensor], Entries], x: Tensor, centre: Tensor, weight: Tensor, bias: Tensor
    ) -> Entries:
        centred = x - centre
        offsets, indices, values = select(centred)
        ctx.save_for_backward(centred, weight, offsets, indices)
        ctx.mark_non_differentiable(offsets, indices)
        return offsets, indices, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred, weight, offsets, entries = ctx.saved_tensors
        backend, grad = backend_of(weight), grads[2].contiguous()
        _, needs_x, _, needs_weight, _ = ctx.needs_input_grad
        ones = centred.new_ones(len(centred), 1)
        grad_weight = backend.accumulate(offsets, entries, grad, centred, len(weight)) if needs_weight else None
        grad_bias = backend.accumulate(offsets, entries, grad, ones, len(weight)).squeeze(1)
        grad_x = backend.decode(offsets, entries, grad, weight) if needs_x else None
        # The centre sees every row's gradient summed, and that sum already stands in the bias gradient.
        return None, grad_x, -(grad_bias @ weight), grad_weight, grad_bias


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


class _Gather(torch.autograd.Function):
    """A number of each entry's latent."""

    @staticmethod
    def forward(ctx: Any, per_latent: Tensor, offsets: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(offsets, indices)
        ctx.d_sae = len(per_latent)
        return per_latent.index_select(0, indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        offsets, indices = ctx.saved_tensors
        grad = grads[0].contiguous()
        ones = grad.new_ones(len(offsets) - 1, 1)
        with torch.autocast(grad.device.type, enabled=False):
            summed = backend_of(grad).accumulate(offsets, indices, grad, ones, ctx.d_sae)
        return summed.squeeze(1), None, None

"""Matching pursuit: one latent after the other, each chosen on what the ones before have left over.

    r_0 = x - centre
    j_t = the latent with the largest read[j] . r_{t-1},   v_t = max(0, read[j_t] . r_{t-1})
    r_t = r_{t-1} - v_t * write[j_t]

Choosing costs k encoder products if every residual is multiplied with all directions. Instead pre-activations follow
their residual by rows of the matrix of all dot products, read @ write.T, which is computed once per call where that is
cheaper and fits. The gradient holds the choice fixed and is exact in everything else; backwards through the steps,

    u_t = dL/dv_t - a_t . write[j_t],   a_{t-1} = a_t + u_t * read[j_t],   a_k = 0
    dL/dread[j_t] += u_t * r_{t-1},   dL/dwrite[j_t] -= v_t * a_t,   dL/dx = a_0

Runs on any device in blocks of rows; only the last sums go through the backends.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sae.kernels.interface import backend_of

BLOCK_ROWS = 512
"""Rows that are worked on at a time; what is held for them is BLOCK_ROWS * max(d_sae, 2 * k * d_in) numbers."""

LARGEST_GRAM = 2**14
"""Latents up to which the matrix of all their dot products, 1 GiB then, is worth its memory."""


def encode_pursuit(
    x: Float[Tensor, "batch d_in"],
    centre: Float[Tensor, " d_in"],
    read: Float[Tensor, "d_sae d_in"],
    write: Float[Tensor, "d_sae d_in"],
    k: int,
    among: Bool[Tensor, " d_sae"] | None = None,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Return values and latents of k steps of matching pursuit in their order.

    A latent may be chosen again. Once no direction has a positive product with the residual, values are 0. Gradients
    flow to the first four tensors, which may be one and the same. Indices are int32.

    Args:
        x: vectors.
        centre: subtracted from them.
        read: directions that say which latent is next, and how strongly.
        write: directions that are taken away.
        k: number of steps.
        among: latents that may be chosen; all if not given.
    """
    return _Pursue.apply(x, centre, read, write, k, among)  # type: ignore[return-value]


class _Pursue(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, centre: Tensor, read: Tensor, write: Tensor, k: int, among: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        centred = x - centre
        values, indices = _select(centred, read, write, k, among)
        ctx.save_for_backward(centred, read, write, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        centred, read, write, values, indices = ctx.saved_tensors
        grad_x = torch.empty_like(centred)
        grad_read, grad_write = torch.zeros_like(read), torch.zeros_like(write)
        for start in range(0, len(centred), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            v, j = values[rows].T, indices[rows].T.contiguous()
            residuals = _residuals(centred[rows], write, v, j)
            u, adjoints, grad_x[rows] = _adjoints(grads[0][rows].T, read, write, v, j)
            ones = torch.arange(j.numel() + 1, device=j.device)  # every step of every row is a row of its own
            add_up = backend_of(read).accumulate
            grad_read += add_up(ones, j.view(-1), u.view(-1), residuals.flatten(0, 1), len(read))
            grad_write -= add_up(ones, j.view(-1), v.reshape(-1), adjoints.flatten(0, 1), len(write))
        return grad_x, -grad_x.sum(0), grad_read, grad_write, None, None


def _select(
    centred: Tensor, read: Tensor, write: Tensor, k: int, among: Tensor | None
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    d_sae, dtype = len(read), centred.dtype
    values = centred.new_zeros(len(centred), k)
    indices = torch.zeros(len(centred), k, dtype=torch.int32, device=centred.device)
    if among is not None:
        latents = among.nonzero()[:, 0]
        if len(latents):
            values, indices = _select(centred, read[latents], write[latents], k, None)
            indices = latents[indices].to(torch.int32)
        return values, indices
    gram = (write @ read.T).to(dtype) if 2 * d_sae <= k * len(centred) and d_sae <= LARGEST_GRAM else None
    for start in range(0, len(centred), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        residual = centred[rows]
        pre = (residual @ read.T).to(dtype)
        for step in range(k):
            best, chosen = pre.max(1)
            values[rows, step], indices[rows, step] = best.relu_(), chosen
            if step + 1 == k:
                break
            if gram is None:
                residual = residual - best[:, None] * write[chosen]
                pre = (residual @ read.T).to(dtype)
            else:
                pre.addcmul_(gram[chosen], best[:, None], value=-1)
    return values, indices


def _residuals(centred: Tensor, write: Tensor, v: Tensor, j: Tensor) -> Float[Tensor, "k batch d_in"]:
    """Return what every step was chosen on."""
    residuals = [centred]
    for step in range(len(j) - 1):
        residuals.append(residuals[-1] - v[step][:, None] * write[j[step]])
    return torch.stack(residuals)


def _adjoints(
    grad: Tensor, read: Tensor, write: Tensor, v: Tensor, j: Tensor
) -> tuple[Float[Tensor, "k batch"], Float[Tensor, "k batch d_in"], Float[Tensor, "batch d_in"]]:
    """Return gradients to every value and every residual after its step, and to the first residual."""
    u, adjoints = torch.empty_like(j, dtype=grad.dtype), write.new_empty(*j.shape, write.shape[1])
    adjoint = write.new_zeros(j.shape[1], write.shape[1])
    for step in reversed(range(len(j))):
        adjoints[step] = adjoint
        u[step] = (grad[step] - torch.linalg.vecdot(adjoint, write[j[step]])) * (v[step] > 0)
        adjoint = adjoint + u[step][:, None] * read[j[step]]
    return u, adjoints, adjoint

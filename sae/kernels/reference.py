"""Every kernel in the plainest torch: codes are spread over all latents, and then it is matrix products.

The oracle of the tests, and what runs on devices without a backend of their own. Only operations whose result has no
known size (`select_above`, `select_batch_topk`) wait for the device.
Under autocast the products run in its precision and results return in the precision of the weights.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def select_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Bool[Tensor, " d_sae"] | None,
    k_aux: int,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """Return values and latents of the k largest pre-activations, then of the k_aux largest among the dead.

    With `absolute` the k largest are those furthest from zero, on either side.
    """
    pre = x @ weight.T + bias
    chosen = (pre.abs() if absolute else pre).topk(k).indices
    selected = [(pre.gather(1, chosen), chosen)]
    if dead is not None:
        selected.append(pre.masked_fill(~dead, -torch.inf).topk(k_aux))
    values = torch.cat([values for values, _ in selected], 1)
    indices = torch.cat([indices for _, indices in selected], 1)
    return values.to(weight.dtype), indices.to(torch.int32)


def select_above(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the pre-activations above a threshold, one per latent or one for all, in compressed rows."""
    pre = (x @ weight.T + bias).to(weight.dtype)
    return _compressed(pre, pre > threshold)


def select_batch_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the n largest positive pre-activations of the whole batch, in compressed rows; needs no guess."""
    pre = (x @ weight.T + bias).to(weight.dtype)
    kept = torch.zeros_like(pre, dtype=torch.bool)
    kept.view(-1)[pre.reshape(-1).topk(min(n, pre.numel())).indices] = True
    return _compressed(pre, kept & (pre > 0))


def decode(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "batch d_in"]:
    """Return codes @ weight."""
    return (_dense(offsets, indices, values, len(weight)) @ weight).to(weight.dtype)


def gather_dots(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    grad: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, " nnz"]:
    """Return the entries of grad @ weight.T at the positions of the codes."""
    return (grad @ weight.T)[_rows(offsets, indices), indices.long()].to(weight.dtype)


def accumulate(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    vectors: Float[Tensor, "batch d_in"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """Return codes.T @ vectors."""
    return (_dense(offsets, indices, values, d_sae).T @ vectors).to(vectors.dtype)


def _compressed(pre: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    offsets = torch.zeros(len(pre) + 1, dtype=torch.int64, device=pre.device)
    offsets[1:] = kept.sum(1).cumsum(0)
    return offsets, kept.nonzero()[:, 1].to(torch.int32), pre[kept]


def _rows(offsets: Tensor, indices: Tensor) -> Tensor:
    numbers = torch.arange(len(offsets) - 1, device=offsets.device)
    return numbers.repeat_interleave(offsets.diff(), output_size=len(indices))


def _dense(offsets: Tensor, indices: Tensor, values: Tensor, d_sae: int) -> Tensor:
    dense = values.new_zeros(len(offsets) - 1, d_sae)
    return dense.index_put_((_rows(offsets, indices), indices.long()), values, accumulate=True)

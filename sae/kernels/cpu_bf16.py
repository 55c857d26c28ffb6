"""The CPU backend with candidates from a bf16 product, scored again in float32.

On processors with bf16 products the encoder's product, which is most of a training step, takes about a quarter of its
time in bf16. Its pre-activations are too coarse to train on (8 bits), but good enough to say which entries could be
among the largest: `MARGIN` times as many as wanted are taken from it, their pre-activations are computed again exactly,
and the largest of those are kept. Values and gradients are thus those of float32; only an entry whose bf16 rank is off
by more than the margin can be missed.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae.kernels import cpu
from sae.kernels.cpu import accumulate, decode, gather_dots, select_above

__all__ = ["accumulate", "decode", "gather_dots", "is_fast", "select_above", "select_batch_topk", "select_topk"]

MARGIN = 1.5
"""Candidates per entry that is kept."""

BATCH_MARGIN = 0.98
"""The search over a batch starts at this share of its floor, for a bf16 value may lie below the exact one."""


def is_fast() -> bool:
    """Return whether this processor multiplies bf16 matrices faster than float32 ones."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def select_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    k: int,
    dead: Bool[Tensor, " d_sae"] | None,
    k_aux: int,
    absolute: bool = False,
) -> tuple[Float[Tensor, "batch n"], Int[Tensor, "batch n"]]:
    """As `cpu.select_topk`; the dead latents, of which there should be few, get a float32 product of their own."""
    n_candidates = min(round(MARGIN * k), len(weight))
    if k == 0 or absolute or n_candidates == len(weight):
        return cpu.select_topk(x, weight, bias, k, dead, k_aux, absolute)
    rough = cpu.select_topk(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), n_candidates, None, 0)[1]
    scored = _scored(x, weight, bias, torch.arange(len(x) + 1) * n_candidates, rough.reshape(-1)).view_as(rough)
    values, chosen = scored.topk(k, sorted=False)
    indices = rough.gather(1, chosen)
    if dead is None:
        return values, indices
    dead_values, dead_indices = cpu.select_topk(x, weight, bias, 0, dead, k_aux)
    return torch.cat([values, dead_values], 1), torch.cat([indices, dead_indices], 1)


def select_batch_topk(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    n: int,
    floor: Float[Tensor, ""],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """As `cpu.select_batch_topk`; without a floor, and where it was too high, the search is cpu's own."""
    if floor <= 0:
        return cpu.select_batch_topk(x, weight, bias, n, floor)
    start = (BATCH_MARGIN * floor).bfloat16()
    offsets, indices, _ = cpu.select_above(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), start)
    if len(indices) < n:
        return cpu.select_batch_topk(x, weight, bias, n, floor)
    return cpu.largest_of(offsets, indices, _scored(x, weight, bias, offsets, indices), n)


def _scored(x: Tensor, weight: Tensor, bias: Tensor, offsets: Tensor, indices: Tensor) -> Float[Tensor, " nnz"]:
    """Return the exact pre-activations of some entries."""
    return gather_dots(offsets, indices, x, weight) + bias[indices]

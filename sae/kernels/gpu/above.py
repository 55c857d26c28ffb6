"""Selection of what is above a threshold, fused with the encoder's product.

A program owns a block of rows and a span of latents and walks through the span tile by tile. It counts as it goes, so
it knows the slot of every entry: no atomics, the same order every time. Small batches are cut into several spans, to
keep the device busy; each has room for `capacity` entries of every row, and a last step moves them together. Memory: 8
capacity bytes per row and span.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from sae.kernels.gpu.product import BLOCK_LATENTS, launch_options, operands, pre_activations, sum_dtype

BLOCK_ROWS = 64
"""Rows per program; with more, the slots of a tile's entries do not fit into registers beside its sums."""

MIN_PROGRAMS = 512
"""Programs wanted: a few for each of the multiprocessors of a large device."""


def select_above(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, " d_sae"],
    capacity: int,
) -> tuple[Float[Tensor, "batch capacity"], Int[Tensor, "batch capacity"], Int[Tensor, " batch"]]:
    """Return values and latents of the pre-activations above their latent's threshold, and their number per row.

    Entries stand in the order of latents; free slots have value -inf and latent 0. The number is that of all entries
    above the threshold; where it exceeds `capacity`, only the first `capacity` are returned.
    """
    dtype = weight.dtype
    x, weight = operands(x, weight)
    (batch, d_in), d_sae = x.shape, len(weight)
    options, n_tiles = launch_options(batch, x.dtype, BLOCK_ROWS), triton.cdiv(d_sae, BLOCK_LATENTS)
    n_row_blocks = triton.cdiv(batch, options["BLOCK_ROWS"])
    tiles_per_span = triton.cdiv(n_tiles, max(MIN_PROGRAMS // max(n_row_blocks, 1), 1))
    n_spans = triton.cdiv(n_tiles, tiles_per_span)
    room = min(capacity, tiles_per_span * BLOCK_LATENTS)
    values = torch.full((n_spans, batch, room), -torch.inf, dtype=sum_dtype(x.dtype), device=x.device)
    indices = torch.zeros_like(values, dtype=torch.int32)
    counts = torch.empty(n_spans, batch, dtype=torch.int32, device=x.device)
    with torch.cuda.device_of(x):
        _above_kernel[(n_row_blocks, n_spans)](
            *(x, weight, bias, threshold, values, indices, counts),
            *(batch, d_sae, d_in, room, tiles_per_span),
            **options,
        )
    values, indices = _moved_together(values, indices, counts, capacity)
    return values.to(dtype), indices, counts.sum(0, dtype=torch.int32)


def _moved_together(values: Tensor, indices: Tensor, counts: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Join the spans of every row into `capacity` slots."""
    n_spans, batch, room = values.shape
    if n_spans == 1 and room == capacity:
        return values[0], indices[0]
    slot = torch.arange(room, device=counts.device)
    target = (counts.cumsum(0) - counts)[:, :, None] + slot
    # Free slots, and what does not fit, go into one more column, which is cut off.
    target = target.where(slot < counts[:, :, None], capacity).clamp(max=capacity).transpose(0, 1).flatten(1)
    joined = values.new_full((batch, capacity + 1), -torch.inf)
    latents = indices.new_zeros(batch, capacity + 1)
    joined.scatter_(1, target, values.transpose(0, 1).flatten(1))
    latents.scatter_(1, target, indices.transpose(0, 1).flatten(1))
    return joined[:, :capacity].contiguous(), latents[:, :capacity].contiguous()


@triton.jit
@no_type_check
def _above_kernel(
    x,
    weight,
    bias,
    threshold,
    values,
    indices,
    counts,
    batch,
    d_sae,
    d_in,
    room,
    tiles_per_span,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_LATENTS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    first_row, span = tl.program_id(0) * BLOCK_ROWS, tl.program_id(1)
    rows = first_row + tl.arange(0, BLOCK_ROWS)
    # 64 bits reach the block, 32 suffice within it.
    values += (span.to(tl.int64) * batch + first_row) * room
    indices += (span.to(tl.int64) * batch + first_row) * room
    SUM: tl.constexpr = values.dtype.element_ty
    count = tl.zeros([BLOCK_ROWS], tl.int32)
    for tile in range(span * tiles_per_span, tl.minimum((span + 1) * tiles_per_span, tl.cdiv(d_sae, BLOCK_LATENTS))):
        latents = tile * BLOCK_LATENTS + tl.arange(0, BLOCK_LATENTS)
        pre = pre_activations(x, weight, bias, rows, latents, batch, d_sae, d_in, SUM, BLOCK_IN, PRECISION)
        level = tl.load(threshold + latents, latents < d_sae, float("inf")).to(SUM)
        above = (pre > level[None, :]).to(tl.int32)
        slots = count[:, None] + tl.cumsum(above, 1) - 1
        fits = (above > 0) & (slots < room) & (rows < batch)[:, None]
        places = (tl.arange(0, BLOCK_ROWS) * room)[:, None] + slots
        tl.store(values + places, pre, fits)
        tl.store(indices + places, latents[None, :], fits)
        count += tl.sum(above, 1)
    tl.store(counts + span * batch + rows, count, rows < batch)

"""Selection of what is above a threshold, fused with the encoder's product.

A program owns a block of rows and a span of latents and walks through the span tile by tile. It counts as it goes, so
it knows the slot of every entry: no atomics, the same order every time. Small batches are cut into several spans, to
keep the device busy.

How many entries there are is known only afterwards. `select_above_within` has `capacity` slots for every row, says how
many would have been needed, and does not wait for the device. `select_above` returns just the entries: it reads the
counts (one wait) after a first pass with `FIRST_CAPACITY` slots, 8 bytes each, per row and span. Where these did not
suffice a second pass writes every entry to its final place, so it never needs more memory than its result.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae.kernels.gpu.product import BLOCK_LATENTS, launch_options, operands, pre_activations, sum_dtype

BLOCK_ROWS = 64
"""Rows per program; with more, the slots of a tile's entries do not fit into registers beside its sums."""

MIN_PROGRAMS = 512
"""Programs wanted: a few for each of the multiprocessors of a large device."""

FIRST_CAPACITY = 256
"""Slots per row and span when nothing is known about how many entries there will be."""


def select_above(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
) -> tuple[Int[Tensor, " batch_plus_1"], Int[Tensor, " nnz"], Float[Tensor, " nnz"]]:
    """Return the pre-activations above a threshold, one per latent or one for all, in compressed rows.

    Waits for the device, to know the size of the result.
    """
    dtype = weight.dtype
    values, indices, counts = _in_slots(x, weight, bias, threshold, FIRST_CAPACITY)
    offsets = F.pad(counts.sum(1).cumsum(0), (1, 0))
    room = values.shape[2]
    if not bool((counts > room).any()):
        used = torch.arange(room, device=x.device) < counts[:, :, None]
        return offsets, indices[used], values[used].to(dtype)
    starts = (counts.flatten().cumsum(0) - counts.flatten()).view_as(counts)
    values, indices = values.new_empty(int(offsets[-1])), indices.new_empty(int(offsets[-1]))
    _write(x, weight, bias, threshold, starts, len(weight), values, indices, counts)
    return offsets, indices, values.to(dtype)


def select_above_within(
    x: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
    bias: Float[Tensor, " d_sae"],
    threshold: Float[Tensor, "..."],
    capacity: int,
) -> tuple[Float[Tensor, "batch capacity"], Int[Tensor, "batch capacity"], Int[Tensor, " batch"]]:
    """Return values and latents of the pre-activations above a threshold, and their number per row.

    Entries stand in the order of latents; free slots have value -inf and latent 0. The number is that of all entries
    above the threshold; where it exceeds `capacity`, only the first `capacity` are returned. Does not wait.
    """
    values, indices, counts = _in_slots(x, weight, bias, threshold, capacity)
    batch, _, room = values.shape
    slot = torch.arange(room, device=x.device)
    target = (counts.cumsum(1) - counts)[:, :, None] + slot
    # Free slots, and what does not fit, go into one more column, which is cut off.
    target = target.where(slot < counts[:, :, None], capacity).clamp(max=capacity).flatten(1)
    joined = weight.new_full((batch, capacity + 1), -torch.inf).scatter_(1, target, values.flatten(1).to(weight.dtype))
    latents = indices.new_zeros(batch, capacity + 1).scatter_(1, target, indices.flatten(1))
    return joined[:, :-1].contiguous(), latents[:, :-1].contiguous(), counts.sum(1)


def _in_slots(
    x: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor, capacity: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values and latents [batch n_spans room], and how many there are of each span, which may be more."""
    n_spans, tiles_per_span = _spans(len(x), len(weight))
    room = min(capacity, tiles_per_span * BLOCK_LATENTS)
    values = x.new_empty(len(x), n_spans, room, dtype=sum_dtype(weight.dtype))
    indices = torch.empty_like(values, dtype=torch.int32)
    counts = torch.empty(len(x), n_spans, dtype=torch.int64, device=x.device)
    starts = (torch.arange(counts.numel(), device=x.device) * room).view_as(counts)
    _write(x, weight, bias, threshold, starts, room, values, indices, counts)
    return values, indices, counts


def _spans(batch: int, d_sae: int) -> tuple[int, int]:
    """Return into how many spans the latents are cut, and their tiles."""
    n_tiles = triton.cdiv(d_sae, BLOCK_LATENTS)
    n_row_blocks = max(triton.cdiv(batch, BLOCK_ROWS), 1)
    tiles_per_span = triton.cdiv(n_tiles, max(MIN_PROGRAMS // n_row_blocks, 1))
    return triton.cdiv(n_tiles, tiles_per_span), tiles_per_span


def _write(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor,
    starts: Tensor,
    room: int,
    values: Tensor,
    indices: Tensor,
    counts: Tensor,
) -> None:
    """Write every row's and span's entries from its start on, at most `room`, and count them all."""
    x, weight = operands(x, weight)
    (batch, d_in), d_sae = x.shape, len(weight)
    options = launch_options(batch, x.dtype, BLOCK_ROWS)
    n_spans, tiles_per_span = _spans(batch, d_sae)
    with torch.cuda.device_of(x):
        _above_kernel[(triton.cdiv(batch, options["BLOCK_ROWS"]), n_spans)](
            *(x, weight, bias, threshold.expand(d_sae).contiguous(), starts, values, indices, counts),
            *(batch, d_sae, d_in, room, tiles_per_span),
            **options,
        )


@triton.jit
@no_type_check
def _above_kernel(
    x,
    weight,
    bias,
    threshold,
    starts,
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
    span, n_spans = tl.program_id(1), tl.num_programs(1)
    rows = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    lists = rows * n_spans + span
    # 64 bits reach the block, 32 suffice within it.
    base = tl.load(starts + tl.program_id(0) * BLOCK_ROWS * n_spans + span)
    first = (tl.load(starts + lists, rows < batch, 0) - base).to(tl.int32)
    values += base
    indices += base
    SUM: tl.constexpr = values.dtype.element_ty
    count = tl.zeros([BLOCK_ROWS], tl.int32)
    for tile in range(span * tiles_per_span, tl.minimum((span + 1) * tiles_per_span, tl.cdiv(d_sae, BLOCK_LATENTS))):
        latents = tile * BLOCK_LATENTS + tl.arange(0, BLOCK_LATENTS)
        pre = pre_activations(x, weight, bias, rows, latents, batch, d_sae, d_in, SUM, BLOCK_IN, PRECISION)
        level = tl.load(threshold + latents, latents < d_sae, float("inf")).to(SUM)
        above = (pre > level[None, :]).to(tl.int32)
        slots = count[:, None] + tl.cumsum(above, 1) - 1
        fits = (above > 0) & (slots < room) & (rows < batch)[:, None]
        tl.store(values + (first[:, None] + slots), pre, fits)
        tl.store(indices + (first[:, None] + slots), latents[None, :], fits)
        count += tl.sum(above, 1)
    tl.store(counts + lists, count, rows < batch)

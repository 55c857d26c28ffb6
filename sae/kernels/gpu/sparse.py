"""What follows selection on GPUs: sums of weighted table rows, each in a fixed order.

`decode` sums rows of the decoder for every row of codes; `accumulate` sums vectors for every latent, after a stable
sort of the entries by latent. Both are one kernel over segments of entries. A latent that fires in very many rows would
keep one program busy long after the others, so its entries are cut into pieces, which are summed on their own and then
added up in their order. Sums are float32, or float64 where the table is.

Both read a row of the table for every entry that is not zero (selections are filled up with zeros), and write every row
of the result once; pieces take up to 2 `MOST_PIECES` rows of sums more.
"""

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sae.kernels.gpu.product import sum_dtype

PIECE = 512
"""Entries of a latent that one program sums, or more where these would be too many pieces."""

MOST_PIECES = 8192
"""Pieces, at about full length, into which all entries are cut."""


def decode(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "batch d_in"]:
    """Sum the weighted latent directions of every row."""
    out = weight.new_empty(len(offsets) - 1, weight.shape[1])
    return _sum_segments(offsets[:-1], offsets[1:], indices, values, weight, out)


def gather_dots(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    grad: Float[Tensor, "batch d_in"],
    weight: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, " nnz"]:
    """Multiply every entry's latent direction with the gradient of its row."""
    out, options = weight.new_empty(len(indices)), _launch_options(weight.shape[1])
    with torch.cuda.device_of(weight):
        _dots_kernel[(triton.cdiv(len(indices), options["BLOCK_ENTRIES"]),)](
            *(_rows(offsets, indices), indices.contiguous(), grad.contiguous(), weight.contiguous(), out),
            *(len(indices), weight.shape[1]),
            **options,
        )
    return out


def accumulate(
    offsets: Int[Tensor, " batch_plus_1"],
    indices: Int[Tensor, " nnz"],
    values: Float[Tensor, " nnz"],
    vectors: Float[Tensor, "batch d_in"],
    d_sae: int,
) -> Float[Tensor, "d_sae d_in"]:
    """Sum, for every latent, the weighted vectors of the rows it is active in."""
    # Zeros come last, after all latents, where no segment reaches.
    latents, order = torch.where(values != 0, indices, d_sae).sort(stable=True)
    rows, values = _rows(offsets, indices)[order], values[order]
    bounds = torch.searchsorted(latents, torch.arange(d_sae + 1, dtype=latents.dtype, device=latents.device))
    starts, ends = bounds[:-1], bounds[1:]
    out = vectors.new_empty(d_sae, vectors.shape[1])
    piece = max(PIECE, triton.next_power_of_2(len(indices) // MOST_PIECES))
    if len(indices) <= piece:
        return _sum_segments(starts, ends, rows, values, vectors, out)
    piece_starts, piece_ends, piece_bounds = _cut(starts, ends, piece, len(indices) // piece * 2)
    sums = vectors.new_empty(len(piece_starts), vectors.shape[1], dtype=sum_dtype(vectors.dtype))
    _sum_segments(piece_starts, piece_ends, rows, values, vectors, sums)
    ends = ends.where(ends - starts <= piece, starts)
    return _sum_segments(starts, ends, rows, values, vectors, out, (piece_bounds, sums))


def _cut(starts: Tensor, ends: Tensor, piece: int, n_pieces: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut segments of more than `piece` entries; return the pieces' starts and ends, and the bounds of each segment's.

    `n_pieces` is the most there can be. Those beyond what is needed get entries of some segment, or none.
    """
    counts = ends - starts
    bounds = F.pad(((counts + piece - 1) // piece * (counts > piece)).cumsum(0), (1, 0))
    numbers = torch.arange(n_pieces, device=counts.device)
    owner = (torch.searchsorted(bounds, numbers, right=True) - 1).clamp(max=len(counts) - 1)
    piece_starts = starts[owner] + (numbers - bounds[owner]) * piece
    return piece_starts, torch.minimum(piece_starts + piece, ends[owner]), bounds


def _sum_segments(
    starts: Tensor,
    ends: Tensor,
    indices: Tensor,
    values: Tensor,
    table: Tensor,
    out: Tensor,
    pieces: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Fill row s of `out` with the sum over e in starts[s]:ends[s] of values[e] * table[indices[e]], zeros left out.

    With `pieces`, bounds and rows, the rows bounds[s]:bounds[s + 1] are added on.
    """
    options = _launch_options(table.shape[1])
    grid = (len(starts), triton.cdiv(table.shape[1], options["BLOCK_IN"]))
    piece_bounds, sums = pieces or (starts, table)
    with torch.cuda.device_of(table):
        _sum_kernel[grid](
            *(starts, ends, indices.contiguous(), values.contiguous(), table.contiguous(), piece_bounds, sums, out),
            table.shape[1],
            WITH_PIECES=pieces is not None,
            **options,
        )
    return out


def _launch_options(d_in: int) -> dict[str, Any]:
    """Return tiles of 2,048 elements, as wide as the table up to 256."""
    width = min(256, triton.next_power_of_2(d_in))
    return {"BLOCK_ENTRIES": min(2048 // width, 128), "BLOCK_IN": width, "num_warps": 2}


def _rows(offsets: Tensor, indices: Tensor) -> Tensor:
    numbers = torch.arange(len(offsets) - 1, dtype=torch.int32, device=indices.device)
    return numbers.repeat_interleave(offsets.diff(), output_size=len(indices))


@triton.jit
@no_type_check
def _sum_kernel(
    starts,
    ends,
    indices,
    values,
    table,
    piece_bounds,
    sums,
    out,
    d_in,
    WITH_PIECES: tl.constexpr,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """One segment and one block of columns; partial sums of BLOCK_ENTRIES interleaved entries are added at the end."""
    segment = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_IN + tl.arange(0, BLOCK_IN)
    inside = columns < d_in
    SUM: tl.constexpr = tl.float64 if table.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([BLOCK_ENTRIES, BLOCK_IN], SUM)
    end = tl.load(ends + segment)
    for first in range(tl.load(starts + segment), end, BLOCK_ENTRIES):
        entries = first + tl.arange(0, BLOCK_ENTRIES)
        rows = tl.load(indices + entries, entries < end, 0).to(tl.int64)
        weights = tl.load(values + entries, entries < end, 0.0).to(SUM)
        mask = (weights != 0)[:, None] & inside[None, :]
        total += weights[:, None] * tl.load(table + rows[:, None] * d_in + columns[None, :], mask, 0.0).to(SUM)
    result = tl.sum(total, 0)
    if WITH_PIECES:
        for piece in range(tl.load(piece_bounds + segment), tl.load(piece_bounds + segment + 1)):
            result += tl.load(sums + piece * d_in + columns, inside, 0.0)
    tl.store(out + segment * d_in + columns, result, inside)


@triton.jit
@no_type_check
def _dots_kernel(
    rows,
    indices,
    grad,
    weight,
    out,
    nnz,
    d_in,
    BLOCK_ENTRIES: tl.constexpr,
    BLOCK_IN: tl.constexpr,
):
    """One block of entries, whatever rows they belong to."""
    entries = tl.program_id(0) * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    real = entries < nnz
    left = grad + tl.load(rows + entries, real, 0).to(tl.int64)[:, None] * d_in
    right = weight + tl.load(indices + entries, real, 0).to(tl.int64)[:, None] * d_in
    SUM: tl.constexpr = tl.float64 if weight.dtype.element_ty == tl.float64 else tl.float32
    products = tl.zeros([BLOCK_ENTRIES, BLOCK_IN], SUM)
    for start in range(0, d_in, BLOCK_IN):
        columns = start + tl.arange(0, BLOCK_IN)
        mask = real[:, None] & (columns < d_in)[None, :]
        products += tl.load(left + columns, mask, 0.0).to(SUM) * tl.load(right + columns, mask, 0.0).to(SUM)
    tl.store(out + entries, tl.sum(products, 1), real)
